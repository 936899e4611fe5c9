//! `api`: any operation of the pages, from its JSON to its JSON.

use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Context;
use crate::args::{Api, Profile};
use crate::background;
use crate::control::{ApiCall, Client};
use crate::failure::Failure;
use crate::session::{Need, Session};
use crate::{plain, ui};

/// More than any request of the pages may have.
const REQUEST_BYTES_MAX: u64 = 512 * 1024;

/// A line of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    op: String,
    #[serde(borrow)]
    request: &'a RawValue,
    profile: Option<Profile>,
}

pub(super) async fn api(context: &Context, api: Api) -> Result<u8, Failure> {
    let Some(operation) = api.operation else {
        return batch(context, api.profile).await;
    };
    let read = async { read_request(io::stdin().lock()) };
    let done = match read.await {
        Ok(request) => {
            call(context, ApiCall { profile: api.profile.into(), operation, request }).await
        }
        Err(failure) => Err(failure),
    };
    let failed = done.is_err();
    print(&done.unwrap_or_else(|failure| failure.into_answer(api.profile)), context.json)?;
    Ok(failed.into())
}

/// Calls whoever runs the file. What starts something is left with a process that sees it through.
async fn call(context: &Context, call: ApiCall) -> Result<Value, Failure> {
    let runs = ["RunCommand", "InvokeCommand", "ExecContainerCommand"].contains(&&*call.operation);
    let reads = reads(&call);
    if runs {
        context.database.make_folder()?;
        let answer = background::hand_over(context.database.path(), &call).await?;
        context.database.announce();
        return Ok(answer);
    }
    let need = if reads { Need::Read } else { Need::Write };
    context.with_session(need, async |session: &mut Session| session.call(call).await).await
}

/// A request a line, an answer a line.
async fn batch(context: &Context, profile: Profile) -> Result<u8, Failure> {
    context.database.make_folder()?;
    let mut owner = Link::new(context);
    let (mut input, mut line, mut failed) = (io::stdin().lock(), Vec::new(), false);
    loop {
        line.clear();
        let read = (&mut input).take(REQUEST_BYTES_MAX + 1).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(failed.into()),
            Ok(_) => {}
            Err(error) => {
                print(&cannot_read(&error).into_answer(profile), true)?;
                return Ok(1);
            }
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let (profile, done) = match parse(&line, profile) {
            Ok((profile, call)) => (profile, owner.call(&call).await),
            Err(failure) => (profile, Err(failure)),
        };
        failed |= done.is_err();
        print(&done.unwrap_or_else(|failure| failure.into_answer(profile)), true)?;
    }
}

/// The way of a batch to the process that runs the file: one after the other, if they end.
struct Link<'a> {
    context: &'a Context,
    client: Option<Client>,
    /// Somebody who answers nothing has the file, and has been waited for.
    has_waited: bool,
}

impl<'a> Link<'a> {
    fn new(context: &'a Context) -> Self {
        Self { context, client: None, has_waited: false }
    }

    async fn call(&mut self, call: &ApiCall) -> Result<Value, Failure> {
        loop {
            let client = match &mut self.client {
                Some(client) => client,
                None => {
                    let client = self.connect().await?;
                    self.client.insert(client)
                }
            };
            let done = client.call(call).await;
            if let Err(failure) = &done
                && failure.is_lost()
            {
                self.client = None;
                // What nobody has taken, and what only reads, may be asked of another.
                if failure.is_unsent() || reads(call) {
                    continue;
                }
            }
            return done;
        }
    }

    async fn connect(&mut self) -> Result<Client, Failure> {
        let database = self.context.database.path();
        let client = match self.has_waited {
            true => background::owner_at_once(database).await,
            false => background::owner(database).await,
        };
        self.has_waited = client.as_ref().is_err_and(Failure::is_in_use);
        let client = client?;
        self.context.database.announce();
        Ok(client)
    }
}

/// Whether a call changes nothing.
fn reads(call: &ApiCall) -> bool {
    ["Describe", "Preview"].iter().any(|verb| call.operation.starts_with(verb))
}

fn parse(line: &[u8], profile: Profile) -> Result<(Profile, ApiCall), Failure> {
    if line.len() as u64 > REQUEST_BYTES_MAX {
        return Err(too_large());
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| {
        let message = format!("want {{\"op\":…,\"request\":…}} in a line: {error}");
        Failure::new("InvalidParameter", 400, message)
    })?;
    let profile = line.profile.unwrap_or(profile);
    let request = line.request.get().to_owned();
    Ok((profile, ApiCall { profile: profile.into(), operation: line.op, request }))
}

fn read_request(input: impl Read) -> Result<String, Failure> {
    let mut request = Vec::new();
    let read = input.take(REQUEST_BYTES_MAX + 1).read_to_end(&mut request);
    read.map_err(|error| cannot_read(&error))?;
    if request.len() as u64 > REQUEST_BYTES_MAX {
        return Err(too_large());
    }
    String::from_utf8(request).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new("InvalidParameter", 400, format!("the request is no UTF-8 at byte {at}"))
    })
}

fn too_large() -> Failure {
    let message = format!("a request may have at most {REQUEST_BYTES_MAX} bytes");
    Failure::new("InvalidParameter", 400, message)
}

fn cannot_read(error: &io::Error) -> Failure {
    Failure::new("Request.CannotRead", 400, format!("cannot read standard input: {error}"))
}

/// Prints what came of it, failures too: both are answers. In one line where lines are counted.
fn print(answer: &Value, in_one_line: bool) -> Result<(), Failure> {
    let text = if in_one_line { answer.to_string() } else { format!("{answer:#}") };
    ui::print(format!("{}\n", plain::json(&text)).as_bytes())
}
