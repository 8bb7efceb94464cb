//! A small S3 server in this process, for tests: it keeps objects in memory and misbehaves on command.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What goes wrong on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wire {
    /// Answers with this status and S3 error code, without doing anything.
    Status(u16, &'static str),
    /// Closes the connection, without doing anything.
    Reset,
    /// Does it, then closes the connection.
    ResetAfter,
    /// Answers late.
    Stall(Duration),
    /// Sends half the body, then closes the connection.
    Truncate,
    /// Sends half the body as if that were all.
    Short,
    /// Sends half the body, and the rest late.
    StallBody(Duration),
    /// Flips a bit of the body.
    FlipBit,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) op: &'static str,
    pub(super) key: String,
    pub(super) query: HashMap<String, String>,
    pub(super) headers: HashMap<String, String>,
    body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Object {
    bytes: Vec<u8>,
    etag: String,
    checksum: Option<String>,
    lock: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Parts {
    key: String,
    lock: Vec<(String, String)>,
    parts: BTreeMap<u32, Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Parts>,
    forgets_locks: bool,
    next_upload: u32,
    rules: Vec<(&'static str, u32, Wire)>,
    log: Vec<Request>,
}

pub(super) struct TestServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<usize>,
}

impl Response {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), length: None }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<Error><Code>{code}</Code><Message>no luck</Message></Error>"))
            .header("x-amz-request-id", "REQ1")
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl TestServer {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `times` operations of this name go wrong. Names: Put, Get, Head, List, Delete, CreateUpload, Part,
    /// Complete, Abort, ListUploads.
    pub(super) fn fail(&self, op: &'static str, times: u32, wire: Wire) {
        self.lock().rules.push((op, times, wire));
    }

    pub(super) fn count(&self, op: &str) -> usize {
        self.lock().log.iter().filter(|request| request.op == op).count()
    }

    pub(super) fn last(&self, op: &str) -> Request {
        self.lock().log.iter().rfind(|request| request.op == op).unwrap().clone()
    }

    /// From now on it takes locks and does not keep them.
    pub(super) fn forget_locks(&self) {
        self.lock().forgets_locks = true;
    }

    pub(super) fn uploads(&self) -> usize {
        self.lock().uploads.len()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader, &stream) {
        let rule = take_rule(&mut state.lock().unwrap(), &request);
        if !answer(&stream, state, &request, rule) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn take_rule(state: &mut State, request: &Request) -> Option<Wire> {
    state.log.push(Request { body: Vec::new(), ..request.clone() });
    let index = state.rules.iter().position(|(op, times, _)| *op == request.op && *times > 0)?;
    state.rules[index].1 -= 1;
    Some(state.rules[index].2)
}

/// False when the connection is over.
fn answer(stream: &TcpStream, state: &Mutex<State>, request: &Request, rule: Option<Wire>) -> bool {
    let handle = || handle(&mut state.lock().unwrap(), request);
    match rule {
        Some(Wire::Status(status, code)) => send(stream, Response::error(status, code), request),
        Some(Wire::Reset) => false,
        Some(Wire::ResetAfter) => {
            handle();
            false
        }
        Some(Wire::Stall(time)) => {
            std::thread::sleep(time);
            send(stream, handle(), request)
        }
        Some(wire) => send_spoiled(stream, handle(), request, wire),
        None => send(stream, handle(), request),
    }
}

fn send_spoiled(mut stream: &TcpStream, mut response: Response, request: &Request, wire: Wire) -> bool {
    let half = response.body.len() / 2;
    match wire {
        Wire::FlipBit => {
            response.body[half] ^= 1;
            send(stream, response, request)
        }
        Wire::Short => {
            response.body.truncate(half);
            response.headers.retain(|(name, _)| name != "content-range");
            send(stream, response, request)
        }
        Wire::StallBody(time) => {
            let rest = response.body.split_off(half);
            response.length = Some(half + rest.len());
            send(stream, response, request);
            std::thread::sleep(time);
            stream.write_all(&rest).is_ok()
        }
        _ => {
            response.length = Some(response.body.len());
            response.body.truncate(half);
            send(stream, response, request);
            false
        }
    }
}

fn send(mut stream: &TcpStream, response: Response, request: &Request) -> bool {
    let length = response.length.unwrap_or(response.body.len());
    let mut text = format!("HTTP/1.1 {} X\r\n", response.status);
    let sized = response.headers.iter().any(|(name, _)| name == "content-length");
    if !sized && response.status != 204 {
        text += &format!("content-length: {length}\r\n");
    }
    for (name, value) in &response.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    let body = if request.op == "Head" { &[][..] } else { &response.body[..] };
    stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(body)).is_ok()
}

fn read_request(reader: &mut BufReader<TcpStream>, mut stream: &TcpStream) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if headers.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query: HashMap<String, String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), decode(value)))
        .collect();
    let key = decode(path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key));
    Some(Request { op: operation(&method, &key, &query), key, query, headers, body })
}

fn operation(method: &str, key: &str, query: &HashMap<String, String>) -> &'static str {
    let has = |name: &str| query.contains_key(name);
    match method {
        "PUT" if has("uploadId") => "Part",
        "PUT" => "Put",
        "POST" if has("uploads") => "CreateUpload",
        "POST" => "Complete",
        "DELETE" if has("uploadId") => "Abort",
        "DELETE" => "Delete",
        "HEAD" => "Head",
        "GET" if has("uploads") => "ListUploads",
        "GET" if has("retention") => "Retention",
        "GET" if key.is_empty() => "List",
        _ => "Get",
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn handle(state: &mut State, request: &Request) -> Response {
    match request.op {
        "Put" => put(state, request),
        "Get" | "Head" => get(state, request),
        "Delete" => {
            state.objects.remove(&request.key);
            Response::new(204, "")
        }
        "List" => list(state, request),
        "Retention" => Response::error(404, "NoSuchObjectLockConfiguration"),
        "CreateUpload" => create_upload(state, request),
        "Part" => part(state, request),
        "Complete" => complete(state, request),
        "Abort" => match state.uploads.remove(&request.query["uploadId"]) {
            Some(_) => Response::new(204, ""),
            None => Response::error(404, "NoSuchUpload"),
        },
        _ => list_uploads(state, request),
    }
}

fn put(state: &mut State, request: &Request) -> Response {
    if request.headers.contains_key("if-none-match") && state.objects.contains_key(&request.key) {
        return Response::error(412, "PreconditionFailed");
    }
    let checksum = request.headers.get("x-amz-checksum-crc32c").cloned();
    let lock = lock_of(state, request);
    let object = Object { bytes: request.body.clone(), etag: "\"e\"".to_owned(), checksum, lock };
    state.objects.insert(request.key.clone(), object);
    Response::new(200, "").header("etag", "\"e\"")
}

/// The headers of its lock, which a HEAD returns.
fn lock_of(state: &State, request: &Request) -> Vec<(String, String)> {
    let is_lock = |name: &String| name.starts_with("x-amz-object-lock-") && !state.forgets_locks;
    request
        .headers
        .iter()
        .filter(|(name, _)| is_lock(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn get(state: &mut State, request: &Request) -> Response {
    let Some(object) = state.objects.get(&request.key) else { return Response::error(404, "NoSuchKey") };
    let size = object.bytes.len();
    let mut response = match request.headers.get("range").map(|range| bounds(range)) {
        None => Response::new(200, object.bytes.clone()),
        Some((start, _)) if start >= size => return Response::error(416, "InvalidRange"),
        Some((start, end)) => {
            let end = end.min(size);
            Response::new(206, &object.bytes[start..end])
                .header("content-range", format!("bytes {start}-{}/{size}", end - 1))
        }
    };
    if let (200, Some(checksum)) = (response.status, &object.checksum)
        && request.headers.contains_key("x-amz-checksum-mode")
    {
        response = response.header("x-amz-checksum-crc32c", checksum);
    }
    if request.op == "Head" {
        response = response.header("content-length", size.to_string());
        response.headers.extend(object.lock.clone());
    }
    response.header("etag", &object.etag).header("last-modified", "Wed, 01 Jan 2025 00:00:00 GMT")
}

fn bounds(range: &str) -> (usize, usize) {
    let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    (start.parse().unwrap(), end.parse::<usize>().unwrap() + 1)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Pages of 100, so that few objects show whether pages are joined.
fn list(state: &mut State, request: &Request) -> Response {
    let prefix = request.query.get("prefix").cloned().unwrap_or_default();
    let after = request.query.get("continuation-token").cloned().unwrap_or_default();
    let matching: Vec<_> = state.objects.iter().filter(|(k, _)| k.starts_with(&prefix) && **k > after).collect();
    let entries: String = matching.iter().take(100).map(|(key, object)| {
        format!("<Contents><Key>{}</Key><Size>{}</Size><LastModified>2025-01-01T00:00:00.000Z</LastModified></Contents>", escape(key), object.bytes.len())
    }).collect();
    let more = matching.len() > 100;
    let token = if more {
        format!("<NextContinuationToken>{}</NextContinuationToken>", escape(matching[99].0))
    } else {
        String::new()
    };
    Response::new(
        200,
        format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{entries}</ListBucketResult>"),
    )
}

fn create_upload(state: &mut State, request: &Request) -> Response {
    state.next_upload += 1;
    let id = format!("u{}", state.next_upload);
    let parts = Parts { key: request.key.clone(), lock: lock_of(state, request), parts: BTreeMap::new() };
    state.uploads.insert(id.clone(), parts);
    Response::new(
        200,
        format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
    )
}

fn part(state: &mut State, request: &Request) -> Response {
    let number: u32 = request.query["partNumber"].parse().unwrap();
    match state.uploads.get_mut(&request.query["uploadId"]) {
        None => Response::error(404, "NoSuchUpload"),
        Some(Parts { parts, .. }) => {
            parts.insert(number, request.body.clone());
            Response::new(200, "").header("etag", format!("\"p{number}\""))
        }
    }
}

fn complete(state: &mut State, request: &Request) -> Response {
    let Some(Parts { key, lock, parts }) = state.uploads.remove(&request.query["uploadId"]) else {
        return Response::error(404, "NoSuchUpload");
    };
    let etag = format!("\"x-{}\"", parts.len());
    let bytes = parts.into_values().flatten().collect();
    state.objects.insert(key, Object { bytes, etag: etag.clone(), checksum: None, lock });
    Response::new(200, format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"))
}

fn list_uploads(state: &mut State, request: &Request) -> Response {
    let prefix = request.query.get("prefix").cloned().unwrap_or_default();
    let entries: String = state
        .uploads
        .iter()
        .filter(|(_, upload)| upload.key.starts_with(&prefix))
        .map(|(id, upload)| format!("<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>", escape(&upload.key)))
        .collect();
    Response::new(
        200,
        format!("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{entries}</ListMultipartUploadsResult>"),
    )
}
