//! The plain HTTP side: `/version`, `/health`, `/livez`, `/readyz`, `/metrics`, `/debug/vars`,
//! `/debug/pprof/`; and the way to the JSON gateway.

mod health;
mod peer;
mod process;
mod profile;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ALLOW, CONTENT_TYPE, DATE, HOST, HeaderValue, LOCATION, ORIGIN};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};

use crate::grpc::Body;
use crate::shared::Shared;
use crate::{api, gateway, metrics};

/// Bytes of a body that are read although nobody wants them.
const UNREAD_BYTES_MAX: usize = 256 << 10;
/// How long they may take.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Which paths an address serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// Clients: everything.
    Client,
    /// `--listen-metrics-urls`.
    Metrics,
    /// `--listen-peer-urls`.
    Peer,
}

/// What a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    Tls,
    /// TLS, by a client whose certificate names a user.
    TlsByName,
}

/// Answers one request.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    stopping: api::Stopping,
    surface: Surface,
    over: Over,
    remote: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
        return text(StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header");
    }
    let version = request.version();
    let mut response = match surface {
        Surface::Client => serve_client(&shared, stopping, over, request).await,
        Surface::Metrics => route_unread(&shared, surface, request).await,
        Surface::Peer => peer::serve(&shared, remote, request).await,
    };
    if version == Version::HTTP_2 {
        // Of itself hyper gives none there, because answers of gRPC have none.
        let date = httpdate::fmt_http_date(SystemTime::now());
        let date = HeaderValue::try_from(date).expect("letters and digits");
        response.headers_mut().insert(DATE, date);
    }
    response
}

async fn serve_client(
    shared: &Arc<Shared>,
    stopping: api::Stopping,
    over: Over,
    request: Request<Incoming>,
) -> Response<Body> {
    if over == Over::Plain
        && let Some(refused) = refuse_host(shared, request.headers())
    {
        return refused;
    }
    if over == Over::TlsByName && names_nobody(shared, &request) {
        read_out(request);
        return text(
            StatusCode::BAD_REQUEST,
            "CommonName of client sending a request against gateway will be ignored and not used as \
             expected\n",
        );
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = if request.method() == Method::OPTIONS {
        Response::new(Body::Empty)
    } else {
        route_client(shared, stopping, request).await
    };
    add_cors(shared, origin, response.headers_mut());
    response
}

/// Lets the client send the rest of a body that nobody reads, within bounds, while its answer is on the way.
///
/// HTTP/2 would close the stream under it, and a client that has not sent all by then may lose the answer over that
/// (curl does: error 92). HTTP/1 has no such trouble: hyper reads on by itself, or closes.
pub(crate) fn read_out(request: Request<Incoming>) {
    let is_http2 = request.version() == Version::HTTP_2;
    let mut body = request.into_body();
    if !is_http2 || body.is_end_stream() {
        return;
    }
    tokio::task::spawn_local(async move {
        let rest = async {
            let mut read = 0;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                read += frame.data_ref().map_or(0, bytes::Bytes::len);
                if read > UNREAD_BYTES_MAX {
                    return;
                }
            }
        };
        // Who takes longer than that sees his stream closed.
        let _ = tokio::time::timeout(UNREAD_TIMEOUT, rest).await;
    });
}

/// Whether the gateway would pass over the user that a certificate names.
fn names_nobody(shared: &Shared, request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let gateway = path.starts_with("/v3/") || path.starts_with("/v3beta/");
    gateway && shared.config.grpc_gateway && shared.auth.is_enabled()
}

/// What clients reach only: the gateway, if it is there.
async fn route_client(
    shared: &Arc<Shared>,
    stopping: api::Stopping,
    request: Request<Incoming>,
) -> Response<Body> {
    if !shared.config.grpc_gateway {
        return route_unread(shared, Surface::Client, request).await;
    }
    let path = request.uri().path();
    let path = match path.strip_prefix("/v3beta/") {
        Some(rest) => [gateway::PREFIX, rest].concat(),
        None => path.to_owned(),
    };
    if path.starts_with(gateway::PREFIX) {
        return gateway::serve(Arc::clone(shared), stopping, &path, request).await;
    }
    if path == "/v3" {
        let response = to_folder(&request, gateway::PREFIX);
        read_out(request);
        return response;
    }
    route_unread(shared, Surface::Client, request).await
}

/// What needs nothing of a request's body.
async fn route_unread(
    shared: &Arc<Shared>,
    surface: Surface,
    request: Request<Incoming>,
) -> Response<Body> {
    let response = route(shared, surface, &request).await;
    read_out(request);
    response
}

/// Go's answer to the name of a folder without its slash.
fn to_folder(request: &Request<Incoming>, folder: &'static str) -> Response<Body> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let place = format!("{folder}{query}");
    let mut response = Response::new(Body::Empty);
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let shown = place.replace('&', "&amp;").replace('"', "&#34;").replace('\'', "&#39;");
        let link = format!("<a href=\"{shown}\">Temporary Redirect</a>.\n\n");
        response = Response::new(Body::text(link));
        set_type(&mut response, "text/html; charset=utf-8");
    }
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    // A query may hold what a header cannot.
    let place = HeaderValue::from_bytes(place.as_bytes());
    let place = place.unwrap_or(HeaderValue::from_static(folder));
    response.headers_mut().insert(LOCATION, place);
    response
}

async fn route(
    shared: &Arc<Shared>,
    surface: Surface,
    request: &Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path();
    let client = surface == Surface::Client;
    match path {
        "/version" if client => get_only(request, || json(version(shared))),
        "/health" => match not_get(request) {
            Some(refused) => refused,
            None => health::health(shared, request.uri().query()).await,
        },
        "/metrics" => {
            let mut response = Response::new(Body::text(render_metrics(shared)));
            set_type(&mut response, metrics::CONTENT_TYPE);
            response
        }
        "/debug/vars" if client => get_only(request, || {
            let mut response = Response::new(Body::text(process::vars()));
            set_type(&mut response, "application/json; charset=utf-8");
            response
        }),
        "/debug/pprof" if client && shared.config.pprof => to_folder(request, profile::PREFIX),
        _ if client && shared.config.pprof && path.starts_with(profile::PREFIX) => {
            profile::serve(&path[profile::PREFIX.len()..], request.uri().query()).await
        }
        _ if health::is_check(path) => match not_get(request) {
            Some(refused) => refused,
            None => health::check(shared, path, request.uri().query()).await,
        },
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn version(shared: &Shared) -> String {
    let cluster = shared.cluster.read().version.clone();
    let (cluster, storage) = if cluster.is_empty() {
        ("not_decided".to_owned(), "unknown".to_owned())
    } else {
        (cluster, shared.storage_version())
    };
    format!(
        r#"{{"etcdserver":"{}","etcdcluster":"{cluster}","storage":"{storage}"}}"#,
        crate::ETCD_VERSION
    )
}

fn render_metrics(shared: &Shared) -> Vec<u8> {
    let (mut values, mut totals) = shared.observe();
    process::observe(&mut values, &mut totals);
    let mut out = shared.metrics.render(&values, &totals);
    if let Some(transport) = shared.transport.get() {
        let mut text = String::new();
        metrics::peers::render(&mut text, shared.member_id, transport.metrics());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// Values of a query parameter.
fn values<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.unwrap_or_default().split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn get_only(
    request: &Request<Incoming>,
    answer: impl FnOnce() -> Response<Body>,
) -> Response<Body> {
    not_get(request).unwrap_or_else(answer)
}

fn not_get(request: &Request<Incoming>) -> Option<Response<Body>> {
    if request.method() == Method::GET {
        return None;
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    Some(response)
}

fn json(body: String) -> Response<Body> {
    let mut response = Response::new(Body::text(body));
    set_type(&mut response, "application/json");
    response
}

/// A plain text answer as Go's helper makes it.
fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::text(body));
    *response.status_mut() = status;
    set_type(&mut response, "text/plain; charset=utf-8");
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert("x-content-type-options", nosniff);
    response
}

fn set_type(response: &mut Response<Body>, value: &'static str) {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(value));
}

/// The host whitelist guards plain HTTP against DNS rebinding.
fn refuse_host(shared: &Shared, headers: &HeaderMap) -> Option<Response<Body>> {
    let allowed = shared.config.host_whitelist.as_ref()?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host_name(host);
    if allowed.iter().any(|entry| host_name(entry) == name) {
        return None;
    }
    let body = format!(
        "\netcd received your request, but the Host header was unrecognized.\n\nTo fix this, choose \
         one of the following options:\n- Enable TLS, then any HTTPS request will be allowed.\n- Add \
         the hostname you want to use to the whitelist in settings.\n  - e.g. etcd --host-whitelist \
         {name:?}\n\nThis requirement has been added to help prevent \"DNS Rebinding\" attacks \
         (CVE-2018-5702).\n\n"
    );
    Some(text(StatusCode::MISDIRECTED_REQUEST, body))
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn add_cors(shared: &Shared, origin: Option<HeaderValue>, response: &mut HeaderMap) {
    let origin = match &shared.config.cors {
        None => HeaderValue::from_static("*"),
        Some(allowed) => {
            let Some(origin) = origin else { return };
            if !allowed.iter().any(|entry| entry.as_bytes() == origin.as_bytes()) {
                return;
            }
            origin
        }
    };
    let fixed = HeaderValue::from_static;
    response.insert("access-control-allow-methods", fixed("POST, GET, OPTIONS, PUT, DELETE"));
    response.insert("access-control-allow-origin", origin);
    response.insert("access-control-allow-headers", fixed("accept, content-type, authorization"));
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn a_host_is_compared_without_its_port() {
        assert_eq!(host_name("a.example:2379"), "a.example");
        assert_eq!(host_name("a.example"), "a.example");
        assert_eq!(host_name("[::1]:2379"), "[::1]");
    }
}
