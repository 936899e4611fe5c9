//! Requests whose answers come in pages.

use adjutant::control::Request;
use adjutant::{
    DescribeCommands, DescribeCommandsResponse, DescribeFires, DescribeFiresResponse,
    DescribeInstances, DescribeInstancesResponse, DescribeInvocationResults,
    DescribeInvocationResultsResponse, DescribeInvocations, DescribeInvocationsResponse,
    UnreadableRecord,
};

/// A request whose answer comes in pages.
pub(crate) trait Paged: Request + Clone {
    /// Asks for entries by the `page_size` from where the page with this token begins.
    fn turn_to(&mut self, page_size: usize, next_token: Option<String>);

    /// Returns the token of the next page; empty after the last.
    fn next_token(response: &Self::Response) -> &str;

    /// Returns the records that cannot be understood.
    fn unreadable(response: &Self::Response) -> &[UnreadableRecord];

    fn append(response: &mut Self::Response, next: Self::Response);
}

macro_rules! paged {
    ($request:ident, $response:ident, $($list:ident).+, $($unreadable:ident).+, $($token:ident).+) => {
        impl Paged for $request {
            fn turn_to(&mut self, page_size: usize, next_token: Option<String>) {
                self.max_results = Some(page_size);
                self.next_token = next_token;
            }

            fn next_token(response: &$response) -> &str {
                &response.$($token).+
            }

            fn unreadable(response: &$response) -> &[UnreadableRecord] {
                &response.$($unreadable).+
            }

            fn append(response: &mut $response, next: $response) {
                response.$($list).+.extend(next.$($list).+);
                response.$($unreadable).+.extend(next.$($unreadable).+);
                response.$($token).+ = next.$($token).+;
            }
        }
    };
}

paged!(DescribeInvocations, DescribeInvocationsResponse, invocations, unreadable, next_token);
paged!(
    DescribeInvocationResults,
    DescribeInvocationResultsResponse,
    invocation.results,
    invocation.unreadable,
    invocation.next_token
);
paged!(DescribeCommands, DescribeCommandsResponse, commands, unreadable, next_token);
paged!(DescribeInstances, DescribeInstancesResponse, instances, unreadable, next_token);
paged!(DescribeFires, DescribeFiresResponse, fires, unreadable, next_token);
