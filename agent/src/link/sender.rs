//! What goes out to one controller, in order, and never for longer than it may take.

use std::time::Duration;

use rota_proto::agent::{self as proto, from_agent};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::ended::Ended;
use super::reports::Waiting;
use crate::report::Piece;
use crate::wire;

/// How long a full queue may stay full. The connection's own keep-alive (30 s) sees a dead cable;
/// this sees a controller that has stopped reading.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// Says things to one controller.
pub(super) struct Sender {
    pub(super) to_wire: mpsc::Sender<proto::FromAgent>,
}

impl Sender {
    /// Sends the reports after this number; answers the last one's.
    pub(super) async fn reports(
        &self,
        waiting: &mut watch::Receiver<Waiting>,
        mut sent: u64,
    ) -> Result<u64, Ended> {
        let unsent = waiting.borrow_and_update().after(sent);
        for report in unsent {
            sent = report.seq;
            self.send(from_agent::Message::Report(wire::report(&report))).await?;
        }
        Ok(sent)
    }

    pub(super) async fn print(&self, news: Vec<Piece>) -> Result<(), Ended> {
        for piece in news {
            self.send(from_agent::Message::Output(wire::piece(piece))).await?;
        }
        Ok(())
    }

    pub(super) async fn send(&self, message: from_agent::Message) -> Result<(), Ended> {
        let message = proto::FromAgent { message: Some(message) };
        match timeout(SEND_TIMEOUT, self.to_wire.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Closed),
            Err(_) => Err(Ended::Stuck),
        }
    }
}
