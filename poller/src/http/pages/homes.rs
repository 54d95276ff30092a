//! In which PM2 an app is meant that a page is about.

use dashboards::Homes;
use service::problem::ProblemResponse;
use wire::AppName;

use crate::fleet::Member;
use crate::http::params::Params;

/// The PM2s in which an app stands, and the one in the address.
///
/// # Errors
/// 404: the server has no such PM2; 400: the address names two.
pub(super) fn homes(
    member: &Member,
    name: &AppName,
    params: &mut Params,
) -> Result<Homes, ProblemResponse> {
    let chosen = params.text("pm2_home")?;
    Homes::of(member.state.as_deref(), name, chosen.as_deref()).ok_or_else(|| {
        let shown: String = chosen.unwrap_or_default().chars().take(200).collect();
        let detail = format!("{} has no PM2 in {shown:?}.", member.target.id);
        ProblemResponse::not_found("unknown_home", detail)
    })
}
