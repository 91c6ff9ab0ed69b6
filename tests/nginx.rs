//! The recipe of examples/nginx, with the real nginx.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Host, Run};

/// A program that is ended when the test is.
struct Running(Child);

impl Running {
    fn begin(run: Run<'_>) -> Self {
        let run = run.with(|command| {
            command.stderr(Stdio::inherit());
        });
        Running(run.by_nobody().spawn())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The whole response to a request with `headers`, but for its date.
fn response(port: u16, method: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_else(|| panic!("{response}"))
}

/// The files of examples/nginx, with verify.py beside them as they say, in the host's folder.
fn install(host: &Host, port: u16) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for file in ["verify.py", "nginx/auth.py"] {
        let copy = host.path(file.rsplit('/').next().unwrap());
        std::fs::write(copy, std::fs::read(examples.join(file)).unwrap()).unwrap();
    }
    let behind = free_port();
    let recipe = std::fs::read_to_string(examples.join("nginx/apikey.conf")).unwrap();
    let mut replaced = recipe;
    for (from, to) in [
        ("listen 80;", format!("listen 127.0.0.1:{port};")),
        ("/run/apikey-auth/socket", host.path("run/socket").to_str().unwrap().to_owned()),
        ("127.0.0.1:8080", format!("127.0.0.1:{behind}")),
    ] {
        assert!(replaced.contains(from), "{from}");
        replaced = replaced.replace(from, &to);
    }
    host.write("apikey.conf", replaced.as_bytes());
    // One process, which can be ended as such; and the service behind it.
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|of| format!("{of}_temp_path run;"));
    let config = format!(
        "daemon off; master_process off; pid run/pid; error_log stderr; events {{}}
         http {{
           access_log off; {} include apikey.conf;
           server {{
             listen 127.0.0.1:{behind};
             location / {{ return 200 \"user=$http_x_user key=$http_authorization body=$http_content_length\"; }}
           }}
         }}",
        paths.concat()
    );
    host.write("nginx.conf", config.as_bytes());
    std::fs::create_dir(host.path("run")).unwrap();
    host.chmod("run", 0o777);
    host.let_all_read();
}

#[test]
#[ignore = "needs root, nginx-light and python3"]
fn nginx_lets_in_who_has_an_accepted_key_and_says_who_it_is() {
    let (host, key) = Host::with_key_of("alice");
    let revoked = host.key_from(&["create", "bob"]);
    host.apikey(&["revoke", "bob", "-yq"]).gives(0, "", "");
    let port = free_port();
    install(&host, port);
    let _service = Running::begin(host.program("/usr/bin/python3", &["auth.py", "run/socket"]));
    let folder = host.folder().to_str().unwrap();
    let _nginx =
        Running::begin(host.program("/usr/sbin/nginx", &["-p", folder, "-c", "nginx.conf", "-e", "stderr"]));
    let begun = Instant::now();
    let socket = host.path("run/socket");
    while UnixStream::connect(&socket).is_err() || TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing listens");
        thread::sleep(Duration::from_millis(20));
    }
    let get = |headers: &str| response(port, "GET", headers, "");
    let bearer = |key: &str| format!("Authorization: Bearer {key}\r\n");

    let let_in = get(&bearer(&key));
    assert_eq!(status(&let_in), "200", "{let_in}");
    assert!(
        let_in.ends_with("user=alice key= body=0"),
        "the service behind has not seen who it is: {let_in}"
    );
    let posted = response(port, "POST", &format!("X-User: root\r\n{}", bearer(&key)), "something");
    assert!(posted.ends_with("user=alice key= body=9"), "{posted}");

    // No reason: all are refused in the same way.
    let refused = get("");
    assert_eq!(status(&refused), "401", "{refused}");
    assert!(refused.contains("\r\nWWW-Authenticate: Bearer\r\n") && !refused.contains("X-User"), "{refused}");
    let wrong = format!("{}{:08x}", &key[..67], !u32::from_str_radix(&key[67..], 16).unwrap());
    for headers in [
        "X-User: alice\r\n".to_owned(),
        bearer(&wrong),
        bearer(&revoked),
        bearer("ak_"),
        bearer(""),
        bearer(&format!("{key}, {key}")),
        format!("Authorization: Basic {key}\r\n"),
        format!("Authorization: {key}\r\n"),
    ] {
        assert_eq!(get(&headers), refused, "{headers}");
    }
    assert_eq!(response(port, "POST", &bearer(&wrong), "something"), refused);

    // At once, on connections that stay open.
    let next = host.key_from(&["refresh", "alice", "--yes"]);
    assert_eq!(get(&bearer(&key)), refused);
    assert_eq!(status(&get(&bearer(&next))), "200");
    // Where nobody can tell, nobody is let in.
    std::fs::rename(host.database(), host.path("away.db")).unwrap();
    assert_eq!(status(&get(&bearer(&next))), "500");
    std::fs::rename(host.path("away.db"), host.database()).unwrap();
    assert_eq!(status(&get(&bearer(&next))), "200");
}

#[test]
#[ignore = "needs systemd"]
fn the_unit_beside_it_is_right() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nginx/apikey-auth.service");
    let output = Command::new("systemd-analyze").arg("verify").arg(unit).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
