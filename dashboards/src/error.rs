use askama::Template;
use wire::Problem;

use crate::page::{Frame, Place};
use crate::{Error, Page};

/// A page for what went wrong. On 401 and 403 it says how to sign in.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    /// What every page needs.
    pub page: Page,
    /// Status, title and detail.
    pub problem: Problem,
}

impl ErrorPage {
    /// 404, with what was not found: `No server is called vm9.`
    pub fn not_found(page: Page, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: "not_found".into(),
            status: 404,
            title: "Not found".into(),
            detail: detail.into(),
        };
        Self { page, problem }
    }
}

impl ErrorPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let frame = Frame::new(&self.page, &self.problem.title, Place::Elsewhere, false);
        let sign_in = matches!(self.problem.status, 401 | 403);
        View { frame, sign_in, it: self }.render()
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a ErrorPage,
    sign_in: bool,
}
