use askama::Template;

use crate::page::{Frame, Place};
use crate::{Error, Page};

/// `/login`: one field for a token.
#[derive(Clone, Debug)]
pub struct LoginPage {
    /// What every page needs.
    pub page: Page,
    /// Why the last try was refused, in words.
    pub error: Option<String>,
    /// Where to go afterwards: a path of this poller, or empty for `/`. Comes back as the
    /// form's field `next`.
    pub next: String,
}

impl LoginPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        View { frame: Frame::new(&self.page, "Sign in", Place::Elsewhere, false), it: self }
            .render()
    }
}

#[derive(Template)]
#[template(path = "login.html")]
struct View<'a> {
    frame: Frame<'a>,
    it: &'a LoginPage,
}
