//! HAProxy's runtime API: <https://docs.haproxy.org/2.8/management.html#9.3>. One line is one command; the answer ends with
//! the connection.

use drover_core::rollout::{LoadBalancerAction, LoadBalancerAnswer};
use drover_crds::Haproxy;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Somebody set the server to `maint` or to `drain`: the bits of `srv_admin_state` that a command sets.
const FORCED_MAINTENANCE: u32 = 0x01;
const FORCED_DRAIN: u32 = 0x08;

/// The most that is read of an answer.
const MOST_BYTES: u64 = 1 << 20;

pub(super) async fn tell(haproxy: &Haproxy, action: LoadBalancerAction) -> Result<LoadBalancerAnswer, String> {
    let Haproxy { backend, .. } = haproxy;
    let server = haproxy.resolved_server();
    match action {
        LoadBalancerAction::Look => {
            let shown = ask(haproxy, &format!("show servers state {backend}")).await?;
            let state = admin_state(&shown, backend, server).ok_or_else(|| unknown(haproxy, &shown))?;
            let is_out = state & (FORCED_MAINTENANCE | FORCED_DRAIN) != 0;
            Ok(if is_out { LoadBalancerAnswer::Out } else { LoadBalancerAnswer::Done })
        }
        LoadBalancerAction::Leave => {
            let state = if haproxy.resolved_drain() { "drain" } else { "maint" };
            set(haproxy, state).await?;
            let shown = ask(haproxy, &format!("show stat {backend} 4 -1")).await?;
            let sessions = sessions(&shown, backend, server).ok_or_else(|| unknown(haproxy, &shown))?;
            Ok(match sessions {
                0 => LoadBalancerAnswer::Done,
                open => LoadBalancerAnswer::Busy(format!("{open} sessions of {backend}/{server} are open")),
            })
        }
        LoadBalancerAction::Return => set(haproxy, "ready").await.map(|()| LoadBalancerAnswer::Done),
    }
}

/// Sets the server's state. HAProxy says nothing when it did.
async fn set(haproxy: &Haproxy, state: &str) -> Result<(), String> {
    let server = haproxy.resolved_server();
    let said = ask(haproxy, &format!("set server {}/{server} state {state}", haproxy.backend)).await?;
    if said.trim().is_empty() { Ok(()) } else { Err(unknown(haproxy, &said)) }
}

async fn ask(haproxy: &Haproxy, command: &str) -> Result<String, String> {
    let address = &haproxy.address;
    let failed = |error: std::io::Error| format!("cannot speak with the runtime API of HAProxy at {address}: {error}");
    let mut connection = TcpStream::connect(address).await.map_err(failed)?;
    connection.write_all(format!("{command}\n").as_bytes()).await.map_err(failed)?;
    let mut answer = String::new();
    connection.take(MOST_BYTES).read_to_string(&mut answer).await.map_err(failed)?;
    Ok(answer)
}

/// What HAProxy said instead of what it should.
fn unknown(haproxy: &Haproxy, said: &str) -> String {
    let Haproxy { address, backend, .. } = haproxy;
    let first = said.lines().find(|line| !line.trim().is_empty() && !line.starts_with(['#', '1'])).unwrap_or("nothing");
    let said: String = first.chars().take(200).collect();
    format!("HAProxy at {address} on server {backend}/{}: {said}", haproxy.resolved_server())
}

/// `srv_admin_state` of a server. Columns are found by the names in the line that begins with `#`.
fn admin_state(shown: &str, backend: &str, server: &str) -> Option<u32> {
    column(shown, ' ', ("be_name", backend), ("srv_name", server), "srv_admin_state")
}

/// The sessions that a server has now.
fn sessions(shown: &str, backend: &str, server: &str) -> Option<u32> {
    column(shown, ',', ("pxname", backend), ("svname", server), "scur")
}

fn column(
    table: &str,
    separator: char,
    (backend_column, backend): (&str, &str),
    (server_column, server): (&str, &str),
    wanted: &str,
) -> Option<u32> {
    let head: Vec<&str> = table.lines().find_map(|line| line.strip_prefix("# "))?.split(separator).collect();
    let place = |name: &str| head.iter().position(|column| *column == name);
    let (backend_column, server_column, wanted) = (place(backend_column)?, place(server_column)?, place(wanted)?);
    table.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let cells: Vec<&str> = line.split(separator).collect();
        let is_it = cells.get(backend_column) == Some(&backend) && cells.get(server_column) == Some(&server);
        if is_it { cells.get(wanted)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener},
        process::{Child, Command, Stdio},
        time::{Duration, Instant},
    };

    use super::*;

    /// A HAProxy, ended with the test.
    struct Running {
        process: Child,
        folder: std::path::PathBuf,
        runtime: String,
        front: String,
        web: TcpListener,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    impl Running {
        /// `None`, and a line that says why, where there is no HAProxy. With `DROVER_TEST_ALL` in the environment that is a
        /// failure.
        #[allow(clippy::print_stderr, reason = "who looks at the tests must see what was left out")]
        fn start() -> Option<Self> {
            let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];
            let Some(program) = program.iter().find(|program| std::path::Path::new(program).exists()) else {
                assert!(
                    std::env::var_os("DROVER_TEST_ALL").is_none(),
                    "DROVER_TEST_ALL is set, and there is no haproxy"
                );
                eprintln!("skipped: there is no haproxy");
                return None;
            };
            let web = TcpListener::bind("127.0.0.1:0").unwrap();
            let (runtime, front) = (free().to_string(), free().to_string());
            let folder = std::env::temp_dir().join(format!("drover-haproxy-{}", runtime.replace(':', "-")));
            std::fs::create_dir_all(&folder).unwrap();
            let configuration = folder.join("haproxy.cfg");
            let server = web.local_addr().unwrap();
            let text = format!(
                "global\n  stats socket ipv4@{runtime} level admin\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
                 timeout client 60s\n  timeout server 60s\nfrontend front\n  bind {front}\n  default_backend web\n\
                 backend web\n  server node-1 {server}\n  server node-2 127.0.0.1:1 disabled\n"
            );
            std::fs::write(&configuration, text).unwrap();
            let process = Command::new(program)
                .arg("-db")
                .arg("-f")
                .arg(&configuration)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let running = Self { process, folder, runtime, front, web };
            let deadline = Instant::now() + Duration::from_secs(20);
            while std::net::TcpStream::connect(&running.runtime).is_err() {
                assert!(Instant::now() < deadline, "haproxy does not listen");
                std::thread::yield_now();
            }
            Some(running)
        }

        fn server(&self, server: &str) -> Haproxy {
            Haproxy { address: self.runtime.clone(), backend: "web".into(), server: Some(server.into()), drain: None }
        }
    }

    #[tokio::test]
    async fn a_real_haproxy_lets_a_server_go_says_what_is_open_and_takes_it_back() {
        let Some(running) = Running::start() else { return };
        let server = running.server("node-1");
        let look = || tell(&server, LoadBalancerAction::Look);
        let leave = || tell(&server, LoadBalancerAction::Leave);
        assert_eq!(look().await, Ok(LoadBalancerAnswer::Done));

        // Somebody is being served.
        let mut visitor = std::net::TcpStream::connect(&running.front).unwrap();
        visitor.write_all(b"hello").unwrap();
        let (mut served, _) = running.web.accept().unwrap();
        served.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(leave().await, Ok(LoadBalancerAnswer::Busy("1 sessions of web/node-1 are open".into())));
        assert_eq!(look().await, Ok(LoadBalancerAnswer::Out));
        // And goes on being served.
        served.write_all(b"answer").unwrap();
        visitor.read_exact(&mut [0; 6]).unwrap();
        // Nobody else is.
        let mut other = std::net::TcpStream::connect(&running.front).unwrap();
        assert_eq!(other.read(&mut [0; 1]).unwrap_or(0), 0, "no server is left for another visitor");

        drop((visitor, served));
        let deadline = Instant::now() + Duration::from_secs(20);
        while leave().await != Ok(LoadBalancerAnswer::Done) {
            assert!(Instant::now() < deadline, "the session does not end");
        }
        for _ in 0..2 {
            assert_eq!(tell(&server, LoadBalancerAction::Return).await, Ok(LoadBalancerAnswer::Done));
        }
        assert_eq!(look().await, Ok(LoadBalancerAnswer::Done));
        let _visitor = std::net::TcpStream::connect(&running.front).unwrap();
        running.web.accept().unwrap();

        let maintenance = Haproxy { drain: Some(false), ..server.clone() };
        assert_eq!(tell(&maintenance, LoadBalancerAction::Return).await, Ok(LoadBalancerAnswer::Done));
        tell(&maintenance, LoadBalancerAction::Leave).await.unwrap();
        assert_eq!(look().await, Ok(LoadBalancerAnswer::Out));
    }

    #[tokio::test]
    async fn what_a_real_haproxy_does_not_know_is_said() {
        let Some(running) = Running::start() else { return };
        let stranger = running.server("node-9");
        for action in [LoadBalancerAction::Look, LoadBalancerAction::Leave, LoadBalancerAction::Return] {
            let error = tell(&stranger, action).await.unwrap_err();
            assert!(error.contains("on server web/node-9: "), "{error}");
        }
        let nowhere = Haproxy { backend: "db".into(), ..running.server("node-1") };
        let error = tell(&nowhere, LoadBalancerAction::Leave).await.unwrap_err();
        assert!(error.contains("No such backend"), "{error}");
        let silent = Haproxy { address: free().to_string(), ..stranger };
        let error = tell(&silent, LoadBalancerAction::Leave).await.unwrap_err();
        assert!(error.starts_with("cannot speak with the runtime API of HAProxy at 127.0.0.1:"), "{error}");
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let state = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n\
                     3 web 1 node-1 10.0.0.1 2 8 1\n3 web 2 node-2 10.0.0.2 2 0 1\n";
        assert_eq!(admin_state(state, "web", "node-1"), Some(8));
        assert_eq!(admin_state(state, "web", "node-3"), None);
        let stat = "# pxname,svname,qcur,qmax,scur,smax,\nweb,node-1,0,0,7,9,\n";
        assert_eq!(sessions(stat, "web", "node-1"), Some(7));
        assert_eq!(sessions("No such proxy.\n", "web", "node-1"), None);
    }
}
