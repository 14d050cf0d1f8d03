//! Publishing that the scheduler on this node leads.

use std::time::Duration;

use hyper::Method;
use tokio::time::timeout;

use super::transport::{self, Lines};
use super::{Client, ClientError};
use crate::api::{LeaderLine, LeaderRequest};

/// After so long without a sign of life the daemon counts as gone, and the term as withdrawn: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A published term. It is withdrawn when this is dropped, and when this program ends.
pub struct Leadership {
    lines: Lines,
    term: u64,
}

impl Client {
    /// Publishes that the scheduler on this node leads in that term. All nodes list it as leader for as long as the result
    /// lives, the daemon runs, and nobody publishes a later term.
    ///
    /// # Errors
    /// A problem `not-manager`, `conflict` (an equal or later term is published), `not-in-cluster`, `forbidden`.
    pub async fn lead(&self, term: u64) -> Result<Leadership, ClientError> {
        let target = "/v1/leader";
        let body =
            serde_json::to_vec(&LeaderRequest { term }).map_err(|error| ClientError::Protocol(error.to_string()))?;
        let opened = transport::lines(self.path(), Method::POST, target, Some(body), self.limits);
        let after = self.limits.request;
        let lines = timeout(after, opened)
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout { path: self.path().to_owned(), after }))?;
        let mut leadership = Leadership { lines, term };
        match leadership.line().await? {
            Some(LeaderLine::Leading { .. }) => Ok(leadership),
            _ => Err(ClientError::Protocol(format!("the daemon's answer to {target} is not understood"))),
        }
    }
}

impl Leadership {
    /// The term.
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// Waits until it is lost: `Ok` when a later term was published from this node.
    ///
    /// # Errors
    /// [`ClientError`] when the daemon has gone; then nobody lists this node as leader any more.
    pub async fn lost(&mut self) -> Result<(), ClientError> {
        loop {
            match timeout(SILENCE_MAX, self.line()).await {
                Ok(line) => match line? {
                    Some(LeaderLine::Superseded { .. }) => return Ok(()),
                    Some(_) => {}
                    None => return Err(ClientError::Protocol("the daemon has withdrawn the term".to_owned())),
                },
                Err(_) => return Err(ClientError::Protocol("the daemon shows no sign of life".to_owned())),
            }
        }
    }

    async fn line(&mut self) -> Result<Option<LeaderLine>, ClientError> {
        let Some(line) = self.lines.next().await? else { return Ok(None) };
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| ClientError::Protocol(format!("a line of the daemon's is not understood: {error}")))
    }
}
