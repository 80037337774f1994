//! What a service is told by its environment.

use pgfleet_postgres::Address;

use crate::error::Error;

/// Names the variable of a service: `PGFLEET_TRIP_URL`.
pub(crate) fn variable(service: &str, what: &str) -> String {
    let name: String =
        service.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("PGFLEET_{name}_{what}")
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
    Address::parse(text).map_err(|error| {
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
