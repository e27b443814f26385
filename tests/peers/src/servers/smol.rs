//! smol: one task a connection on an executor that stays on one thread.
//!
//! Outside the layers.

use std::io;
use std::net::TcpListener;

use ::smol::io::{AsyncReadExt, AsyncWriteExt};
use ::smol::net::TcpStream;

use super::BUFFER_BYTES;

/// Accepts and echoes for ever.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let executor = ::smol::LocalExecutor::new();
    ::smol::block_on(executor.run(async {
        let listener = ::smol::net::TcpListener::try_from(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            executor.spawn(echo(stream)).detach();
        }
    }))
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}
