//! L4. Sockets as owners of descriptors: std's conversions, which all socket types have alike.
//!
//! A macro, because the types are separate in std, and what is implemented for them is not ours.
//!
//! Man pages: none. Deliberately not here: what a conversion does to the modes (`socket`).

/// Implements std's conversions for a type that wraps a `Socket` and has a counterpart in std.
macro_rules! owns_descriptor {
    ($name:ident, $guard:expr) => {
        impl std::os::fd::AsFd for $name {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.0.fd()
            }
        }

        impl std::os::fd::AsRawFd for $name {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                self.0.fd().as_raw_fd()
            }
        }

        impl std::os::fd::IntoRawFd for $name {
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                self.0.release().into_raw_fd()
            }
        }

        impl std::os::fd::FromRawFd for $name {
            unsafe fn from_raw_fd(fd: std::os::fd::RawFd) -> $name {
                // SAFETY: the caller gives the descriptor away, as the trait demands.
                unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }.into()
            }
        }

        impl From<std::os::fd::OwnedFd> for $name {
            fn from(fd: std::os::fd::OwnedFd) -> $name {
                $name($crate::net::socket::Socket::adopt(fd, $guard))
            }
        }

        impl From<$name> for std::os::fd::OwnedFd {
            fn from(socket: $name) -> std::os::fd::OwnedFd {
                socket.0.release()
            }
        }

        impl From<std::net::$name> for $name {
            fn from(socket: std::net::$name) -> $name {
                std::os::fd::OwnedFd::from(socket).into()
            }
        }

        impl From<$name> for std::net::$name {
            fn from(socket: $name) -> std::net::$name {
                std::os::fd::OwnedFd::from(socket).into()
            }
        }
    };
}
pub(super) use owns_descriptor;
