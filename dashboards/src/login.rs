use askama::Template;
use wire::Time;

use crate::page::{Frame, Place};
use crate::{Error, Page};

/// `/login`: a name and a password, or a token.
#[derive(Clone, Debug)]
pub struct LoginPage {
    /// What every page needs.
    pub page: Page,
    /// Why the last try was refused, in words.
    pub error: Option<String>,
    /// Where to go afterwards: a path of this poller, or empty for `/`. Comes back as the
    /// form's field `next`.
    pub next: String,
    /// The name that was given at the last try.
    pub name: String,
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

/// `/login/first`: where the first admin says their name and password.
#[derive(Clone, Debug)]
pub struct FirstPage {
    /// What every page needs.
    pub page: Page,
    /// What the link holds; comes back as the form's field `key`.
    pub key: String,
    /// The name that was given at the last try.
    pub name: String,
    /// What was wrong with the last try, in words.
    pub error: Option<String>,
}

impl FirstPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let frame = Frame::new(&self.page, "The first admin", Place::Elsewhere, false);
        FirstView { frame, it: self }.render()
    }
}

#[derive(Template)]
#[template(path = "first.html")]
struct FirstView<'a> {
    frame: Frame<'a>,
    it: &'a FirstPage,
}

/// `/sessions`: who is signed in, each with a button that ends it.
#[derive(Clone, Debug)]
pub struct SessionsPage {
    /// What every page needs.
    pub page: Page,
    /// Newest first.
    pub sessions: Vec<SessionRow>,
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// What it is called.
    pub id: String,
    /// Name of the token or user.
    pub name: String,
    /// Since when.
    pub begun: Time,
    /// When it was used last.
    pub used: Time,
    /// From where it was begun.
    pub address: String,
    /// Whether it is the one of who looks.
    pub current: bool,
}

impl SessionRow {
    fn begun(&self) -> String {
        crate::format::clock(self.begun)
    }

    fn used(&self) -> String {
        crate::format::clock(self.used)
    }

    fn machine(time: &Time) -> String {
        crate::format::machine_time(*time)
    }
}

impl SessionsPage {
    /// The page as HTML.
    pub fn render(&self) -> Result<String, Error> {
        let frame = Frame::new(&self.page, "Sessions", Place::Elsewhere, false);
        SessionsView { frame, it: self }.render()
    }
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsView<'a> {
    frame: Frame<'a>,
    it: &'a SessionsPage,
}
