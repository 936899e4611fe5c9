//! The control socket: how other processes reach the one that runs a database file.
//!
//! One request is one line of JSON, `{"op":"StopInvocation","request":{…}}`; the answer is one line,
//! `{"ok":…}` or `{"error":…}`. With `"watch":true` a run is followed by `{"event":…}` lines up to
//! `{"end":{}}`. The owner speaks first, with `{"ready":…}`: a connection that ends before that line
//! has done nothing, so the other side may safely try again elsewhere.

mod address;
mod client;
mod protocol;
mod server;

pub(crate) use address::Address;
pub(crate) use client::{Client, Events};
pub(crate) use protocol::{
    ApiCall, DescribeFigures, DescribeQuotas, Explain, Figures, Operation, Paged, PauseInvocation,
    RegisterInstance, RemoveInstance, ResumeInvocation, RunNow, SeeDelivered, WatchInvocation,
    Watched,
};
pub(crate) use server::{Server, refuse, serve};
