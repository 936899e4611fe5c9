//! Listings a page at a time.

use crate::error::{Error, Result, Violation};
use crate::limits::Limits;
use crate::store::PageToken;
use crate::wire::ContentEncoding;

/// The page that a listing asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub after: Option<PageToken>,
    pub size: usize,
}

impl Page {
    pub(super) fn new(
        max_results: Option<usize>,
        token: Option<&str>,
        limits: &Limits,
    ) -> Result<Self> {
        let size = max_results.unwrap_or(limits.page_size_default);
        if !(1..=limits.page_size_max).contains(&size) {
            return Err(Error::invalid(Violation::new(
                "InvalidParameter.MaxResults",
                400,
                "MaxResults",
                format!("want 1 to {} entries a page; it is {size}", limits.page_size_max),
            )));
        }
        let after = token.filter(|token| !token.is_empty()).map(PageToken::parse).transpose()?;
        Ok(Self { after, size })
    }
}

/// A token as a response has it; empty after the last page.
pub(super) fn text(next: Option<PageToken>) -> String {
    next.map(|token| token.to_string()).unwrap_or_default()
}

/// The encoding that a request asks for.
pub(super) fn encoding(request: Option<&str>) -> ContentEncoding {
    request.and_then(ContentEncoding::parse).unwrap_or_default()
}
