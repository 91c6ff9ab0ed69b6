//! What `verify --stream` reads.

use serde_json::{Value, json};

use super::key::is_key;
use super::scratch::Scratch;

/// What is there for a fuzzer to begin with: lines whose keys are known.
pub fn keys() -> Vec<&'static str> {
    let scratch = Scratch::new();
    ["active", "retiring", "revoked", "bob"].map(|of| scratch.key(of)).into()
}

/// `answer` runs the program on a database with this input: what it prints, and its exit status.
pub fn check(input: &[u8], answer: impl Fn(&Scratch, &[u8]) -> (Vec<u8>, Option<i32>)) {
    let scratch = Scratch::new();
    let (output, status) = answer(&scratch, input);
    assert_eq!(status, Some(0));
    let output = String::from_utf8(output).unwrap();
    let answers: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: Vec<&str> = lines(input).map(|line| status_of(&scratch, line)).collect();
    let found: Vec<&str> = answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect();
    assert_eq!(found, expected);
    for answer in &answers {
        let members: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members.len(), 7, "{answer}");
        let is_accepted = matches!(answer["status"].as_str(), Some("active" | "retiring"));
        assert_eq!(answer["valid"], json!(is_accepted));
        assert_eq!(
            answer["user"].is_null(),
            matches!(answer["status"].as_str(), Some("unknown" | "malformed"))
        );
    }
}

/// The lines, without their ends.
fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split_inclusive(|byte| *byte == b'\n').map(|line| match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    })
}

fn status_of(scratch: &Scratch, line: &[u8]) -> &'static str {
    let has = |of: &str| scratch.key(of).as_bytes() == line;
    match line {
        line if !is_key(line) => "malformed",
        _ if has("active") || has("bob") || has("web") => "active",
        _ if has("retiring") => "retiring",
        _ if has("revoked") => "revoked",
        _ => "unknown",
    }
}
