//! `pgfleet isolation verify`: the matrix of who reaches what.

use pgfleet_control::isolation::{Proof, TenantProof, Verdict, verify, verify_all};

use crate::args::IsolationVerb;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::talk::Talk;

/// How many holes in tenants' databases are said one by one.
const MOST_HOLES: usize = 20;

pub(crate) async fn run(context: &Context, verb: &IsolationVerb) -> Result<Exit, CommandError> {
    let IsolationVerb::Verify { all } = verb;
    let solution = context.open().await?;
    let proof = if *all { verify_all(&solution).await? } else { verify(&solution).await? };
    if context.talk.json {
        context.talk.json(&proof)?;
    } else if *all {
        print_pairs(context, &proof);
    } else {
        print_matrix(context, &proof);
    }
    for finding in &proof.findings {
        context.talk.say(&format!("open: {}\nhint: {}", finding.message, finding.hint));
    }
    for pair in &proof.pairs {
        let (role, database) = (&pair.role, &pair.database);
        match pair.verdict {
            // One line says it for all roles.
            Verdict::Open if proof.open_to_public(&pair.server, database) => {}
            Verdict::Open => {
                context
                    .talk
                    .say(&format!("open: role {role} may connect to database {database}\nhint: pgfleet provision"));
            }
            Verdict::LockedOut => {
                let answer = pair.login_answer.as_deref().unwrap_or("no right to connect");
                context.talk.say(&format!(
                    "locked out: role {role} cannot connect to its own database {database}: {answer}\nhint: pgfleet provision"
                ));
            }
            _ => {}
        }
    }
    say_tenants(context, &proof.tenants);
    let tried = proof.pairs.iter().filter(|pair| pair.login_answer.is_some()).count();
    if proof.is_tight() {
        context.talk.say(&format!("isolated: {} pairs, {tried} tried with a real login, none open", proof.pairs.len()));
        Ok(Exit::Done)
    } else {
        Ok(Exit::Findings)
    }
}

/// Says what is wrong with tenants' databases, and how many were looked at in which way.
fn say_tenants(context: &Context, proof: &TenantProof) {
    if proof.databases == 0 {
        return;
    }
    for hole in proof.holes.iter().take(MOST_HOLES) {
        let word = if hole.verdict == Verdict::LockedOut { "locked out" } else { "open" };
        context.talk.say(&format!("{word}: {}\nhint: on server {}: {}", hole.message, hole.server, hole.hint));
    }
    if proof.holes.len() > MOST_HOLES {
        context.talk.say(&format!("and {} more; --json has them all", proof.holes.len() - MOST_HOLES));
    }
    let rest = if proof.probed < proof.databases { "; --all tries every one that takes connections" } else { "" };
    context.talk.say(&format!(
        "tenants: {} databases by their rights, {} of them also with {} real logins{rest}",
        proof.databases, proof.probed, proof.logins
    ));
}

/// One row per service, one column per database, the worst of the service's roles in each cell.
fn print_matrix(context: &Context, proof: &Proof) {
    let databases = proof.databases();
    let several = proof.pairs.iter().any(|pair| pair.server != proof.pairs[0].server);
    let title = |(server, name): &(String, String)| if several { format!("{server}/{name}") } else { name.clone() };
    let mut table = Talk::table_of_names("service", databases.iter().map(title));
    let mut services: Vec<&str> = Vec::new();
    for pair in &proof.pairs {
        if !services.contains(&pair.service.as_str()) {
            services.push(&pair.service);
        }
    }
    for service in services {
        let mut row = vec![service.to_owned()];
        for (server, database) in &databases {
            row.push(proof.worst(service, server, database).map_or("-", Verdict::word).to_owned());
        }
        table.add_row(row);
    }
    context.talk.print_table(&table);
}

fn print_pairs(context: &Context, proof: &Proof) {
    let mut table = Talk::table(&["role", "database", "verdict", "catalog", "the server's answer"]);
    for pair in &proof.pairs {
        table.add_row([
            pair.role.as_str(),
            pair.database.as_str(),
            pair.verdict.word(),
            if pair.catalog { "may connect" } else { "may not" },
            pair.login_answer.as_deref().unwrap_or("not tried"),
        ]);
    }
    context.talk.print_table(&table);
}
