//! monoio: one task a connection, reads and writes submitted to io_uring.
//!
//! Outside the layers. Where the kernel or the container has no io_uring it does not start, and the
//! table says so.

use std::io;
use std::net::TcpListener;

use ::monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use ::monoio::net::TcpStream;

use super::BUFFER_BYTES;

/// Accepts and echoes for ever.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let builder = ::monoio::RuntimeBuilder::<::monoio::IoUringDriver>::new();
    let mut runtime = builder.with_entries(4096).build()?;
    runtime.block_on(async {
        let listener = ::monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            drop(::monoio::spawn(echo(stream)));
        }
    })
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let (count, filled) = stream.read(buffer).await;
        if count? == 0 {
            return Ok(());
        }
        // The vector's length is what was read, so the whole of it goes back.
        let (count, emptied) = stream.write_all(filled).await;
        count?;
        buffer = emptied;
        buffer.clear();
    }
}
