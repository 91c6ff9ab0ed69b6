//! The web service of `examples/axum`, built and run as its first lines say.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::Host;

struct Service {
    process: Child,
    address: String,
}

impl Service {
    fn begin(host: &Host) -> Self {
        let program = build();
        let mut process = Command::new(program)
            .args([host.database().as_os_str(), "127.0.0.1:0".as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_start_matches("http://").trim_end().trim_end_matches('/').to_owned();
        Service { process, address }
    }

    /// What is answered to this header: the status, the other headers in small letters, and the body.
    fn answer(&self, authorization: &str) -> (String, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        let status = status.split(' ').nth(1).unwrap().to_owned();
        (status, headers.to_lowercase(), body.to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn build() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/axum/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axum");
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target);
    assert!(build.status().unwrap().success());
    target.join("debug/apikey-axum-example")
}

#[test]
#[ignore = "needs axum"]
fn a_web_service_lets_in_who_has_an_accepted_key_and_gives_nobody_else_a_reason() {
    let (host, alice) = Host::with_key_of("alice");
    let bob = host.key_from(&["create", "bob"]);
    let service = Service::begin(&host);
    let bearer = |key: &str| service.answer(&format!("Authorization: Bearer {key}\r\n"));
    assert_eq!((bearer(&alice).0.as_str(), bearer(&alice).2.as_str()), ("200", "alice\n"));
    assert_eq!(service.answer(&format!("authorization: bearer {bob}\r\n")).2, "bob\n");
    host.apikey(&["revoke", "bob", "-yq"]).gives(0, "", "");
    let headers = [
        format!("Authorization: Bearer {bob}\r\n"),
        format!("Authorization: Bearer {}\r\n", Host::with_key_of("alice").1),
        format!("Authorization: Bearer  {alice}\r\n"),
        format!("Authorization: Basic {alice}\r\n"),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: B\u{e4}arer x\r\n".to_owned(),
        String::new(),
    ];
    for header in headers {
        let (status, headers, body) = service.answer(&header);
        assert_eq!((status.as_str(), body.as_str()), ("401", ""), "{header}");
        assert!(headers.contains("www-authenticate: bearer\r\n"), "{headers}");
    }
    // The use is written down behind the answer.
    let show = || host.apikey(&["show", "alice", "--json"]).run().json()["last_used_at"].clone();
    common::container::wait_for("the use of a key", || show().as_str().map(str::to_owned));
}
