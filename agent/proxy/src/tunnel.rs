//! An upgraded connection: bytes in both directions until one side ends, or until it is cut. It
//! counts as in flight all the while.

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::shared::Exchange;

/// Joins the client's side and the member's side, with what the member already sent.
pub async fn run(exchange: Exchange, client: OnUpgrade, member: (TcpStream, Bytes)) {
    let (mut member, early) = member;
    let joined = exchange.guard(join(client, &mut member, early)).await;
    // The member's port has no connection of ours when the exchange counts as ended.
    drop(member);
    match joined {
        Ok(Ok((sent, received))) => tracing::debug!(sent, received, "tunnel ended"),
        Ok(Err(error)) => tracing::debug!(%error, "tunnel broke off"),
        Err(cut) => tracing::debug!(%cut, "tunnel cut"),
    }
    drop(exchange);
}

async fn join(
    client: OnUpgrade,
    member: &mut TcpStream,
    early: Bytes,
) -> std::io::Result<(u64, u64)> {
    let mut client = TokioIo::new(client.await.map_err(std::io::Error::other)?);
    client.write_all(&early).await?;
    copy_bidirectional(&mut client, member).await
}
