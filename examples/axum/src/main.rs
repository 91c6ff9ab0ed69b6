//! A web service that takes requests with an API key: `Authorization: Bearer ak_...`.
//!
//! `cargo run -- keys.db 127.0.0.1:8080`, and then `curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8080/`
//! says whose key it is. Any other key gets 401 and no reason.

use std::env;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apikey::{Timestamp, User, Verdict, Verifier};
use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

/// Who sent a request: a handler that takes this is called with an accepted key only.
struct Caller(User);

impl FromRequestParts<Arc<Verifier>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, verifier: &Arc<Verifier>) -> Result<Self, Response> {
        let Some(key) = bearer_token(&parts.headers) else { return Err(unauthorized()) };
        let (verifier, key) = (Arc::clone(verifier), key.to_owned());
        // Microseconds, as a rule; but somebody may hold the database.
        let verified = spawn_blocking(move || verifier.verify(&key, Timestamp::now()?)).await;
        match verified {
            Ok(Ok(Verdict::Accepted(key))) => Ok(Caller(key.user)),
            Ok(Ok(_)) => Err(unauthorized()),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

/// RFC 6750, section 2.1.
fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response()
}

/// Whether the key is accepted could not be told: what is wrong is for the log.
fn unavailable(error: &dyn Error) -> Response {
    eprintln!("cannot verify a key: {error}");
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

async fn whoami(Caller(user): Caller) -> String {
    format!("{user}\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(database), Some(address)) = (args.next(), args.next()) else {
        return Err("usage: apikey-axum-example DATABASE ADDRESS".into());
    };
    let verifier = Arc::new(Verifier::open(Path::new(&database), Duration::from_secs(5))?);
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/", get(whoami)).with_state(verifier)).await?;
    Ok(())
}
