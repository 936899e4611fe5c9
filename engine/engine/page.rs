//! Listings a page at a time: by token, which is stable whatever is added, or by number.

use crate::error::{Error, Result, Violation};
use crate::limits::Limits;
use crate::store::{PageToken, Slice};
use crate::wire::ContentEncoding;

/// The page that a listing asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub slice: Slice,
    /// Its number, where pages go by number. Then somebody wants to know how many there are.
    pub number: Option<usize>,
}

/// How a request says which page it wants.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub max_results: Option<usize>,
    pub next_token: Option<&'a str>,
    pub page_number: Option<usize>,
    pub page_size: Option<usize>,
}

/// The page that a request with the pages' four fields for it asks for.
macro_rules! page_of {
    ($request:expr, $limits:expr) => {
        $crate::engine::page::Page::new(
            &$crate::engine::page::Wanted {
                max_results: $request.max_results,
                next_token: $request.next_token.as_deref(),
                page_number: $request.page_number,
                page_size: $request.page_size,
            },
            $limits,
        )
    };
}
pub(super) use page_of;

impl Page {
    /// By number if a number or its size is given, and for the first page of a request that says
    /// nothing; else by token.
    pub(super) fn new(wanted: &Wanted<'_>, limits: &Limits) -> Result<Self> {
        let token = wanted.next_token.filter(|token| !token.is_empty());
        let by_token = wanted.max_results.is_some() || token.is_some();
        let by_number = wanted.page_number.is_some() || wanted.page_size.is_some();
        let (field, size) = match (by_token, wanted.page_size) {
            (true, _) | (false, None) => ("MaxResults", wanted.max_results),
            (false, Some(size)) => ("PageSize", Some(size)),
        };
        let size = size.unwrap_or(limits.page_size());
        if !(1..=limits.page_size_max).contains(&size) {
            let code = match field {
                "PageSize" => "InvalidParameter.PageSize",
                _ => "InvalidParameter.MaxResults",
            };
            let message =
                format!("want 1 to {} entries a page; it is {size}", limits.page_size_max);
            return Err(Error::invalid(Violation::new(code, 400, field, message)));
        }
        if by_token && by_number {
            let message = "give PageNumber and PageSize, or MaxResults and NextToken, not both";
            let code = "InvalidParameter.PageNumber";
            return Err(Error::invalid(Violation::new(code, 400, "PageNumber", message)));
        }
        let number = wanted.page_number.unwrap_or(1);
        if number == 0 {
            let code = "InvalidParameter.PageNumber";
            let message = "want a number from 1; it is 0";
            return Err(Error::invalid(Violation::new(code, 400, "PageNumber", message)));
        }
        let after = token.map(PageToken::parse).transpose()?;
        let skipped = (number - 1).saturating_mul(size);
        let slice = Slice { after, skipped, size, counts: !by_token };
        Ok(Self { slice, number: Some(number).filter(|_| !by_token) })
    }

    /// By token only.
    pub(super) fn by_token(
        max_results: Option<usize>,
        next_token: Option<&str>,
        limits: &Limits,
    ) -> Result<Self> {
        let max_results = max_results.or(Some(limits.page_size()));
        Self::new(&Wanted { max_results, next_token, page_number: None, page_size: None }, limits)
    }

    /// The page of that size that leaves out so many entries, counted.
    pub(super) fn at(offset: usize, size: usize) -> Self {
        let slice = Slice { after: None, skipped: offset, size, counts: true };
        Self { slice, number: None }
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
