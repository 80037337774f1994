//! The main job on a PostgreSQL of its own, with three services at work, left running to be tried.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run::{self, quoted};
use crate::system::{self, Need};

const MANIFEST: &str = "pgfleet.toml";

/// Laid over the manifest; says how the services are run.
const DEV: &str = "pgfleet.dev.toml";

/// The services that have a program, and the port that each would like.
const SERVICES: [(&str, u16); 3] = [("user", 8081), ("trip", 8082), ("notifications", 8083)];

/// How long a service may take to say that it is one of ours.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run() -> Result<()> {
    system::ensure(&[Need::Server])?;
    let root = run::root()?;
    let program = run::build("pgfleet", &[])?;
    eprintln!("\nThe three services of the example in Rust; they are compiled once:");
    let programs =
        [run::build("masar-user", &[])?, run::build("masar-trip", &[])?, run::build("masar-notifications", &[])?];
    let folder = root.join("target/demo/masar");
    // What is there is kept: it may have been edited by whoever tries things out, and a server belongs to it.
    if !folder.join(MANIFEST).exists() {
        run::visibly(run::command(&program)?.args(["init", "--template", "masar"]).arg(&folder))?;
    }
    let before = fs::read_to_string(folder.join(DEV)).unwrap_or_default();
    let found = SERVICES.map(|(service, usual)| port(service, usual, &before));
    // Free ones are held until all were chosen, so that they differ.
    let ports = found.map(|(port, _)| port);
    let dev = dev(ports, &programs.map(|path| path.to_string_lossy().into_owned()));
    fs::write(folder.join(DEV), dev).with_context(|| format!("cannot write {DEV} in {}", folder.display()))?;
    eprintln!("\nIn {}:", folder.display());
    run::visibly(run::command(&program)?.args(["up", "--detach"]).current_dir(&folder))?;
    // To standard output, like the result that it is; all talk went to standard error.
    print!("{}", next_steps(&program.to_string_lossy(), &folder.to_string_lossy(), ports));
    Ok(())
}

/// Returns the port on which a service runs already, or the one that it would like, or one that is free; a free one with
/// what holds it.
fn port(service: &str, usual: u16, dev: &str) -> (u16, Option<TcpListener>) {
    let known = dev.lines().skip_while(|line| *line != format!("[services.{service}]"));
    let known = known.take(2).find_map(|line| line.split("PORT=").nth(1)?.split(' ').next()?.parse().ok());
    if let Some(port) = known.filter(|port| is_ours(service, *port)) {
        return (port, None);
    }
    let free = |port| {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some((held.local_addr().ok()?.port(), Some(held)))
    };
    // Without any free port the service says so.
    free(usual).or_else(|| free(0)).unwrap_or((usual, None))
}

/// Whether a port is answered by this service.
fn is_ours(service: &str, port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(&format!("\"service\":\"{service}\"")))
}

/// Says how the services are run: the programs as they were built, each on its port.
fn dev(ports: [u16; 3], programs: &[String; 3]) -> String {
    let mut text = "# Written by `cargo xtask demo` each time.\n".to_owned();
    for ((service, _), (port, program)) in SERVICES.iter().zip(ports.iter().zip(programs)) {
        // A text with the escapes of Rust is one of TOML.
        let run = format!("PORT={port} exec {}", quoted(program));
        text.push_str(&format!("\n[services.{service}]\nrun = {run:?}\nhealth = \"http://127.0.0.1:{port}/health\"\n"));
    }
    text
}

fn next_steps(program: &str, folder: &str, [user, trip, notifications]: [u16; 3]) -> String {
    let steps = [
        ("every service: version, pending, failed", "status"),
        ("psql in the trip database, as the service's own role", "psql trip"),
        ("proves that no service reaches another one's database", "isolation verify"),
        ("undoes the newest migration of one service …", "revert --service notifications --steps 1"),
        ("… and applies it again", "migrate"),
        ("stops the services and the server; the data stays", "down"),
    ];
    let (program, folder) = (quoted(program), quoted(folder));
    let mut text = format!(
        "\nThe four databases of the example are up, and three of its services. Try next:\n\n\
         \x20 # the drivers, and the trips from Cairo to Alexandria\n\
         \x20 curl http://127.0.0.1:{user}/drivers\n\
         \x20 curl 'http://127.0.0.1:{trip}/trips?from=Cairo&to=Alexandria'\n\n\
         \x20 # books two seats; the second time the trip has another version, and the answer says which\n\
         \x20 curl http://127.0.0.1:{trip}/trips/t_0194409ce9fa70a1c29304152637e801/bookings \\\n\
         \x20   -H 'content-type: application/json' \\\n\
         \x20   -d '{{\"passengerId\": \"p_0194409ac5d67e7fa071829304b5c601\", \"seats\": 2, \"version\": 1}}'\n\n\
         \x20 # what trip published and notifications received, once\n\
         \x20 curl http://127.0.0.1:{notifications}/passengers/p_0194409ac5d67e7fa071829304b5c601/notifications\n\n\
         \x20 cd {folder}\n"
    );
    for (why, command) in steps {
        text.push_str(&format!("\n  # {why}\n  {program} {command}\n"));
    }
    text.push_str(&format!(
        "\n`cargo xtask demo` again finds everything in place. To begin anew: `down` as above, then\n\n  rm -r {folder}\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_steps_can_be_pasted() {
        let text = next_steps("/a b/pgfleet", "/a b/demo", [8081, 9000, 8083]);
        assert!(text.contains("\n  cd '/a b/demo'\n"), "{text}");
        assert!(text.contains("\n  '/a b/pgfleet' psql trip\n"), "{text}");
        assert!(text.contains("\n  curl 'http://127.0.0.1:9000/trips?from=Cairo&to=Alexandria'\n"), "{text}");
    }

    #[test]
    fn a_port_that_somebody_else_has_is_not_taken() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = other.local_addr().unwrap().port();
        assert_ne!(port("trip", taken, "").0, taken);
        let listens = std::thread::spawn(move || {
            // It is asked, and answers as another service would.
            let (mut stream, _) = other.accept().unwrap();
            let mut request = [0; 1024];
            let _read = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"service\":\"user\"}").unwrap();
            other
        });
        let file = dev([1, taken, 2], &["/a b/user".to_owned(), "/a b/trip".to_owned(), "/told".to_owned()]);
        assert!(file.contains(&format!("run = \"PORT={taken} exec '/a b/trip'\"")), "{file}");
        assert_ne!(port("trip", taken, &file).0, taken);
        drop(listens.join().unwrap());
    }

    #[test]
    fn a_service_that_runs_keeps_its_port() {
        let ours = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = ours.local_addr().unwrap().port();
        let listens = std::thread::spawn(move || {
            let (mut stream, _) = ours.accept().unwrap();
            let mut request = [0; 1024];
            let _read = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"service\":\"trip\",\"status\":\"ready\"}").unwrap();
        });
        let file = dev([1, taken, 2], &["/user".to_owned(), "/trip".to_owned(), "/told".to_owned()]);
        assert_eq!(port("trip", 8082, &file).0, taken);
        listens.join().unwrap();
    }
}
