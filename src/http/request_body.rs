//! The bodies of requests on the control socket, each with a limit on its length.

use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};

use crate::engine::OrderRequest;

/// Maximum length of a request with orders, bytes; the command sends several.
const ORDER_BYTES_MAX: usize = 16 << 20;
/// Maximum length of a run id, bytes: that of an argument of a command.
const RUN_ID_BYTES_MAX: usize = 128 << 10;

/// Why a body is refused.
pub(super) type Refused = (StatusCode, String);

/// Reads an order of an operator.
pub(super) async fn order(body: Incoming) -> Result<OrderRequest, Refused> {
    let body = whole(body, ORDER_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// Reads a run id that is too long for the path of a request.
pub(super) async fn run_id(body: Incoming) -> Result<String, Refused> {
    let body = whole(body, RUN_ID_BYTES_MAX).await?;
    let refused = |why: &str| Err((StatusCode::BAD_REQUEST, why.to_owned()));
    match std::str::from_utf8(&body) {
        Ok("") => refused("parameter run_id is missing"),
        Ok(run_id) => Ok(run_id.to_owned()),
        Err(_) => refused("the run id is not UTF-8"),
    }
}

async fn whole(body: Incoming, bytes_max: usize) -> Result<Bytes, Refused> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err((StatusCode::PAYLOAD_TOO_LARGE, error.to_string())),
    }
}
