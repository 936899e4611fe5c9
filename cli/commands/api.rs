//! `api`: any operation of the pages, from its JSON to its JSON.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Context;
use crate::args::{Api, Profile};
use crate::background;
use crate::control::ApiCall;
use crate::failure::Failure;
use crate::session::{Need, Session};
use crate::ui;

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
        Ok(request) => call(context, ApiCall { profile: api.profile, operation, request }).await,
        Err(failure) => Err(failure),
    };
    let failed = done.is_err();
    print(&done.map_err(Failure::into_response), context.json)?;
    Ok(failed.into())
}

/// Calls whoever runs the file. What starts something is left with a process that sees it through.
async fn call(context: &Context, call: ApiCall) -> Result<Value, Failure> {
    let runs = ["RunCommand", "InvokeCommand", "ExecContainerCommand"].contains(&&*call.operation);
    let reads = ["Describe", "Preview"].iter().any(|verb| call.operation.starts_with(verb));
    if runs {
        context.database.make_folder()?;
        let answer = background::hand_over(context.database.path(), &call).await?;
        context.database.announce();
        return Ok(answer);
    }
    let need = if reads { Need::Read } else { Need::Write };
    context.with_session(need, async |session: &mut Session| session.call(call).await).await
}

/// A request a line, an answer a line, all by the same process.
async fn batch(context: &Context, profile: Profile) -> Result<u8, Failure> {
    context.database.make_folder()?;
    let mut owner = background::owner(context.database.path()).await?;
    context.database.announce();
    let (mut input, mut line, mut failed) = (io::stdin().lock(), Vec::new(), false);
    loop {
        line.clear();
        let read = (&mut input).take(REQUEST_BYTES_MAX + 1).read_until(b'\n', &mut line);
        if read.map_err(|error| cannot_read(&error))? == 0 {
            return Ok(failed.into());
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let done = match parse(&line, profile) {
            Ok(call) => owner.call(&call).await,
            Err(failure) => Err(failure),
        };
        // Without an owner the lines that are left could not be answered.
        if let Err(failure) = &done
            && failure.is_lost()
        {
            return Err(Failure::lost());
        }
        failed |= done.is_err();
        print(&done.map_err(Failure::into_response), true)?;
    }
}

fn parse(line: &[u8], profile: Profile) -> Result<ApiCall, Failure> {
    if line.len() as u64 > REQUEST_BYTES_MAX {
        return Err(too_large());
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| {
        let message = format!("want {{\"op\":…,\"request\":…}} in a line: {error}");
        Failure::new("InvalidParameter", 400, message)
    })?;
    Ok(ApiCall {
        profile: line.profile.unwrap_or(profile),
        operation: line.op,
        request: line.request.get().to_owned(),
    })
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
fn print(done: &Result<Value, impl Serialize>, in_one_line: bool) -> Result<(), Failure> {
    let text = match (done, in_one_line) {
        (Ok(answer), true) => serde_json::to_string(answer),
        (Ok(answer), false) => serde_json::to_string_pretty(answer),
        (Err(failure), true) => serde_json::to_string(failure),
        (Err(failure), false) => serde_json::to_string_pretty(failure),
    };
    let text = text.map_err(|error| Failure::new("InternalError", 500, error.to_string()))?;
    ui::print(format!("{text}\n").as_bytes())
}
