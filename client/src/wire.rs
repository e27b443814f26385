//! A TCP connection as the client uses it, whichever library's it is.
//!
//! Application, above L4. The runtime's stream parks a green thread, std's blocks an OS thread: the
//! same names, so what a connection does (`connection`) is written once for both.
//!
//! Deliberately not here: calls that only one style makes.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

/// What both streams have under the same names.
pub(crate) trait Wire: AsFd + Send + Sync + 'static {
    /// Connects with Nagle's algorithm switched off: a message must not wait for the next.
    fn connect(address: &SocketAddr, timeout: Duration) -> Result<Self>
    where
        Self: Sized;
    fn read(&self, buffer: &mut [u8]) -> Result<usize>;
    fn write_all(&self, bytes: &[u8]) -> Result<()>;
    fn set_read_timeout(&self, timeout: Duration) -> Result<()>;
    fn shutdown(&self, how: Shutdown) -> Result<()>;
}

macro_rules! is_wire {
    ($stream:ty) => {
        impl Wire for $stream {
            fn connect(address: &SocketAddr, timeout: Duration) -> Result<$stream> {
                let stream = <$stream>::connect_timeout(address, timeout)?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }

            #[inline]
            fn read(&self, buffer: &mut [u8]) -> Result<usize> {
                Read::read(&mut &*self, buffer)
            }

            #[inline]
            fn write_all(&self, bytes: &[u8]) -> Result<()> {
                Write::write_all(&mut &*self, bytes)
            }

            fn set_read_timeout(&self, timeout: Duration) -> Result<()> {
                <$stream>::set_read_timeout(self, Some(timeout))
            }

            fn shutdown(&self, how: Shutdown) -> Result<()> {
                <$stream>::shutdown(self, how)
            }
        }
    };
}

is_wire!(runtime::net::TcpStream);
is_wire!(std::net::TcpStream);
