//! The other side of the control socket: how this program reaches the process that runs a database file. The library
//! has the protocol and the side of that process.

mod client;
mod paged;

pub(crate) use adjutant::control::{
    Address, ApiCall, ControlServer, DescribeFigures, DescribeQuotas, Explain, Figures,
    FindInvocations, PauseInvocation, RegisterInstance, RemoveInstance, Request, ResumeInvocation,
    RunNow, SeeDelivered, WatchInvocation, WatchedRequest, refuse, serve_stream,
};
pub(crate) use client::{Client, Events, Heard, SILENCE_MAX};
pub(crate) use paged::Paged;
