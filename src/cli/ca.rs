//! `gossipctl ca`: the cluster's certificate authority, and putting a new one in its place.

use std::path::Path;
use std::time::{Duration, Instant};

use super::args::{CaArgs, CaFormat};
use super::exit::{Exit, Failure, Outcome};
use super::node;
use crate::api::{CaChange, CaResponse, RotateCaRequest};
use crate::client::Client;

/// Time between two looks at a change. It takes seconds, and each look is a question to this machine's daemon.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Shows the CA, or changes it.
pub(super) async fn ca(socket: &Path, args: CaArgs) -> Result<Outcome, Failure> {
    let CaArgs { rotate, restart, reason, wait, format } = args;
    let client = Client::connect(socket).await?;
    let mut answer =
        if rotate { client.rotate_ca(&RotateCaRequest { restart, reason }).await? } else { client.ca().await? };
    if let Some(wait) = wait {
        let started = Instant::now();
        while answer.change.is_some() && started.elapsed() < wait {
            tokio::time::sleep(LOOK_INTERVAL).await;
            answer = client.ca().await?;
        }
    }
    let CaResponse { certificate, change, .. } = &answer;
    let said = match change {
        Some(change) => Some(progress(&client, change).await),
        None => None,
    };
    if let Some(said) = said.as_ref().filter(|_| wait.is_some()) {
        return Err(Failure::new(Exit::Failed, said));
    }
    Ok(match format {
        CaFormat::Pem => Outcome { warnings: said.into_iter().collect(), ..Outcome::data(certificate.clone()) },
        CaFormat::Json => Outcome::data(serde_json::to_string_pretty(&answer)? + "\n"),
    })
}

/// How far a change is, and whom it waits for.
async fn progress(client: &Client, CaChange { phase, waiting, .. }: &CaChange) -> String {
    let step = phase.word();
    if waiting.is_empty() {
        format!(
            "the CA is being changed (step {step}): all nodes have followed, and the next step is about to be taken"
        )
    } else {
        let names = node::names(client, waiting).await;
        format!("the CA is being changed (step {step}): waiting for {names}")
    }
}
