//! What a service is told by its environment.

use pgfleet_postgres::Address;
use pgfleet_postgres::address::Surroundings;

use crate::error::Error;

/// Names the variable of a service: `PGFLEET_TRIP_URL`.
pub(crate) fn variable(service: &str, what: &str) -> String {
    format!("PGFLEET_{}_{what}", upper(service))
}

/// Reads a connection string; one that is empty is as good as none.
pub(crate) fn address(variable: &str) -> Result<Option<Address>, Error> {
    match std::env::var(variable) {
        Ok(text) if !text.trim().is_empty() => parse(variable, &text).map(Some),
        _ => Ok(None),
    }
}

/// Reads a connection string; the error names where it came from and not what it says.
pub(crate) fn parse(from: &str, text: &str) -> Result<Address, Error> {
    let surroundings = Surroundings::from_variables(|name| std::env::var(name).ok());
    Address::parse_with(text, &surroundings).map_err(|error| {
        let own = Error::configuration(format!("cannot use {from}")).cause(error.to_string());
        own.hinted("postgresql://user:password@host:5432/database")
    })
}

/// Reads a switch.
pub(crate) fn switch(variable: &str) -> Result<Option<bool>, Error> {
    match std::env::var(variable).as_deref() {
        Ok("true") => Ok(Some(true)),
        Ok("false") => Ok(Some(false)),
        Ok("") | Err(_) => Ok(None),
        Ok(other) => Err(Error::configuration(format!("cannot use {variable}"))
            .cause(format!("`{other}` is neither true nor false"))),
    }
}

/// Writes a name as part of a variable's.
pub(crate) fn upper(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Reads a text; one that is empty is as good as none.
pub(crate) fn text(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.trim().is_empty())
}

/// Reads a number of connections.
pub(crate) fn number(variable: &str) -> Result<Option<usize>, Error> {
    let Some(text) = text(variable) else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(Error::configuration(format!("cannot use {variable}"))
            .cause(format!("`{}` is no number of connections", text.escape_debug()))),
    }
}

/// Puts `DB_HOST` into an address.
pub(crate) fn by_hosts(address: Address) -> Result<Address, Error> {
    match text("DB_HOST") {
        Some(host) => at_host(&address, "DB_HOST", &host),
        None => Ok(address),
    }
}

/// Returns the replica that `DB_READ_HOST` names; none when it is where is written, too.
pub(crate) fn read_host(main: &Address) -> Result<Option<Address>, Error> {
    let Some(host) = text("DB_READ_HOST") else { return Ok(None) };
    let replica = at_host(main, "DB_READ_HOST", &host)?;
    Ok((replica.server() != main.server()).then_some(replica))
}

/// Returns an address at another host, which may name a port.
fn at_host(address: &Address, variable: &str, host: &str) -> Result<Address, Error> {
    let host = host.trim();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, port.to_owned()),
        _ => (host, address.port().to_string()),
    };
    let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
    address
        .by_way_of(&format!("host='{quoted}' port='{port}'"))
        .map_err(|error| Error::configuration(format!("cannot use {variable}")).cause(error.to_string()))
}
