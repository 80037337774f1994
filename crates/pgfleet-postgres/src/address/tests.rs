//! Tests of reading, completing and handing on.

use std::time::Duration;

use super::*;

#[test]
fn password_never_shows() {
    for text in ["postgresql://u:s3cret@h/d", "host=h user=u password='s3cret' dbname=d"] {
        let address = Address::parse(text).unwrap();
        assert!(!format!("{address} {address:?}").contains("s3cret"));
        assert_eq!(address.password().unwrap().expose_secret(), "s3cret");
    }
}

#[test]
fn an_error_does_not_repeat_the_text() {
    let error = Address::parse("postgresql://u:s3cret@h:port/d").unwrap_err();
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[test]
fn sslmode_is_read_from_both_forms() {
    let url = Address::parse("postgresql://h/d?sslmode=verify-full&connect_timeout=3").unwrap();
    assert_eq!(url.tls_mode(), TlsMode::VerifyFull);
    let pairs = Address::parse("host=h dbname=d sslmode=disable").unwrap();
    assert_eq!(pairs.tls_mode(), TlsMode::Disable);
    assert!(Address::parse("host=h sslmode=perhaps").is_err());
}

#[test]
fn what_is_handed_on_keeps_the_protection() {
    let address = Address::parse("postgresql://u@h/d?sslmode=verify-full&sslrootcert=/a b/ca.pem").unwrap();
    let again = Address::parse(address.expose_url().expose_secret()).unwrap();
    assert_eq!(again.tls_parameters(), address.tls_parameters());
    assert_eq!(again.tls_mode(), TlsMode::VerifyFull);
}

#[test]
fn exposed_url_reads_back_with_odd_characters() {
    let address = Address::local(5433, "o'\"r der", "p@ss:/?#%".to_owned().into(), "my db");
    let again = Address::parse(address.expose_url().expose_secret()).unwrap();
    assert_eq!(again.user(), "o'\"r der");
    assert_eq!(again.database(), "my db");
    assert_eq!(again.password().unwrap().expose_secret(), "p@ss:/?#%");
}

#[test]
fn another_way_says_only_what_is_different() {
    let pooler = "postgresql://u:p%40ss@pooler:6432/d?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=3";
    let pooler = Address::parse(pooler).unwrap();
    let verified = "postgresql://u@h:5433/d?sslmode=verify-full&sslrootcert=%2Fca.pem";
    let required = "postgresql://v@h:5432/d?sslmode=require&sslrootcert=%2Fca.pem";
    for (text, url, password, tls) in [
        ("postgresql://h:5433", verified, Some("p@ss"), TlsMode::VerifyFull),
        ("host=h port=5433", verified, Some("p@ss"), TlsMode::VerifyFull),
        ("postgresql://u@h/e?sslmode=disable", "postgresql://u@h:5432/e", Some("p@ss"), TlsMode::Disable),
        ("postgresql://v:q@h?sslmode=require", required, Some("q"), TlsMode::Require),
        ("postgresql://v@h?sslmode=disable", "postgresql://v@h:5432/d", None, TlsMode::Disable),
        ("host=/run/pg port=6000", "postgresql://u@/d?host=%2Frun%2Fpg&port=6000", Some("p@ss"), TlsMode::Disable),
    ] {
        let other = pooler.by_way_of(text).unwrap();
        assert_eq!(other.to_string(), url, "{text}");
        assert_eq!(other.password().map(secrecy::ExposeSecret::expose_secret), password, "{text}");
        assert_eq!(other.config("", "").get_password(), password.map(str::as_bytes), "{text}");
        assert_eq!(other.tls_mode(), tls, "{text}");
        assert_eq!(other.config("", "").get_connect_timeout(), Some(&Duration::from_secs(3)), "{text}");
    }
    assert!(pooler.by_way_of("postgresql://h:port").is_err());
}

#[test]
fn what_another_process_of_ours_gets_is_the_same_connection() {
    for text in [
        "postgresql://o'%5Cr:p'%5C%20w@h1:5432,h2:5433/my%20db?sslmode=verify-full&sslrootcert=/a b/ca.pem&options=-c%20a%3Db",
        "host=/run/pg user=u dbname=d connect_timeout=3 target_session_attrs=read-write keepalives=0",
        "hostaddr=127.0.0.1 port=6000 user=u sslmode=disable channel_binding=disable load_balance_hosts=random",
        "postgresql://h",
    ] {
        let address = Address::parse(text).unwrap();
        let again = Address::parse(address.expose_pairs().expose_secret()).unwrap();
        // The client's own configuration compares what it was told, passwords included.
        assert_eq!(again.config("", ""), address.config("", ""), "{text}");
        assert_eq!(again.targets(), address.targets(), "{text}");
        assert_eq!(
            (again.tls_mode(), again.tls_parameters()),
            (address.tls_mode(), address.tls_parameters()),
            "{text}"
        );
        assert_eq!(again.pool_settings(), address.pool_settings(), "{text}");
        assert_eq!(again.session_kind(), address.session_kind(), "{text}");
        let secret = |address: &Address| address.password().map(|secret| secret.expose_secret().to_owned());
        assert_eq!(secret(&again), secret(&address), "{text}");
    }
}

fn secret(address: &Address) -> Option<&str> {
    address.password().map(secrecy::ExposeSecret::expose_secret)
}

fn refused(text: &str) -> String {
    Address::parse(text).unwrap_err().to_string()
}

#[test]
fn the_strings_of_the_documents_are_read() {
    let second = Duration::from_secs(1);
    for (text, url, password, pool) in [
        (
            "Host=postgres;Port=5432;Database=user;Pooling=true;Minimum Pool Size=0;Maximum Pool Size=100",
            "postgresql://postgres@postgres:5432/user",
            None,
            PoolSettings { min: Some(0), max: Some(100), ..PoolSettings::default() },
        ),
        (
            "Host=localhost;Database=events;Username=app;Password=pass;Minimum Pool Size=5;Maximum Pool Size=100;",
            "postgresql://app@localhost:5432/events",
            Some("pass"),
            PoolSettings { min: Some(5), max: Some(100), ..PoolSettings::default() },
        ),
        (
            "Host=localhost;Database=events;Username=app;Password=pass;Timeout=30;Command Timeout=60;",
            "postgresql://app@localhost:5432/events",
            Some("pass"),
            PoolSettings {
                connect_timeout: Some(30 * second),
                command_timeout: Some(60 * second),
                ..PoolSettings::default()
            },
        ),
        (
            "Host=localhost;Database=events;Username=postgres;Password=postgres;",
            "postgresql://postgres@localhost:5432/events",
            Some("postgres"),
            PoolSettings::default(),
        ),
        (
            "Host=localhost;Database=events;Username=user;Password=pass",
            "postgresql://user@localhost:5432/events",
            Some("pass"),
            PoolSettings::default(),
        ),
        (
            "Host=prod-db.example.com;Database=events;Username=app_user;Password=secret;SSL Mode=Require;Trust Server Certificate=false;",
            "postgresql://app_user@prod-db.example.com:5432/events?sslmode=verify-full",
            Some("secret"),
            PoolSettings::default(),
        ),
    ] {
        let address = Address::parse(text).unwrap();
        assert_eq!(address.to_string(), url, "{text}");
        assert_eq!(secret(&address), password, "{text}");
        assert_eq!(address.pool_settings(), pool, "{text}");
        let again = Address::parse(address.expose_pairs().expose_secret()).unwrap();
        assert_eq!(again.pool_settings(), pool, "{text}");
        // libpq refuses what it does not know.
        assert!(!address.expose_url().expose_secret().contains("pool_"), "{text}");
    }
    for (text, place) in [
        ("Host=localhost;...", "`...` after `Host`"),
        ("Host=localhost;Database=events;...", "`...` after `Database`"),
        ("Host=localhost;Password=pw;…", "`…` after `Password`"),
    ] {
        let told = refused(text);
        assert!(told.contains("cut short") && told.contains(place), "{told}");
    }
}

#[test]
fn keys_of_npgsql_have_many_spellings() {
    let plain = Address::parse("host=a,b port=5433,6000 dbname=d user=u password='p;w' sslmode=verify-ca").unwrap();
    for text in [
        "Host=a:5433,b;Port=6000;Database=d;Username=u;Password='p;w';SSL Mode=VerifyCA",
        "server=a:5433,b:6000; db=d; user id=u; pwd=\"p;w\"; sslmode=verify-ca",
        " SERVER = a:5433, b ;PORT=6000;DataBase=d;UserId=u;PSW='p;w';Ssl Mode=VerifyCa;;",
    ] {
        let address = Address::parse(text).unwrap();
        assert_eq!(address.expose_pairs().expose_secret(), plain.expose_pairs().expose_secret(), "{text}");
    }
    let all = "host=h;port=1;database=d;username=u;password='it''s';Application Name=x;Search Path=a, b;Timezone=UTC;\
               Keepalive=30;Connection Idle Lifetime=7;Target Session Attributes=PreferStandby;Load Balance Hosts=true;\
               Channel Binding=Require;SSL Mode=Prefer;Trust Server Certificate=true;Include Error Detail=true;\
               Root Certificate=/r;SSL Certificate=/c;SSL Key=/k;Max Auto Prepare=10;Pooling=false";
    let address = Address::parse(all).unwrap();
    let pairs = "user='u' password='it\\'s' dbname='d' host='h' port='1' \
                 options='-c search_path=a,\\\\ b -c TimeZone=UTC' keepalives_idle='30' \
                 target_session_attrs='prefer-standby' channel_binding='require' sslmode='prefer' sslrootcert='/r' \
                 sslcert='/c' sslkey='/k' application_name='x' load_balance_hosts='random' pool_min='0' \
                 idle_timeout='0' ";
    assert_eq!(address.expose_pairs().expose_secret(), pairs);
    assert_eq!(address.session_kind(), SessionKind::PreferStandby);
}

#[test]
fn the_safe_reading_of_tls_in_npgsql() {
    for (text, mode) in [
        ("Host=h", TlsMode::Prefer),
        ("Host=h;SSL Mode=Require", TlsMode::Require),
        ("Host=h;SSL Mode=Require;Trust Server Certificate=true", TlsMode::Require),
        ("Host=h;SSL Mode=Require;Trust Server Certificate=false", TlsMode::VerifyFull),
        ("Host=h;SSL Mode=VerifyFull;Trust Server Certificate=false", TlsMode::VerifyFull),
        ("Host=h;SSL Mode=Disable", TlsMode::Disable),
    ] {
        assert_eq!(Address::parse(text).unwrap().tls_mode(), mode, "{text}");
    }
    assert!(refused("Host=h;SSL Mode=VerifyCA;Trust Server Certificate=true").contains("contradicts"));
}

#[test]
fn a_mistake_is_named_and_no_value_is() {
    for (text, words) in [
        ("Host=h;Databse=s3cret", "`Databse` in the connection string; did you mean `Database`?"),
        ("host=h;prot=5;database=s3cret", "`prot` in the connection string; did you mean `Port`?"),
        ("host=h dbnam=s3cret", "`dbnam` in the connection string; did you mean `dbname`?"),
        ("postgresql://h/d?ssl_mode=s3cret", "`ssl_mode` in the connection string; did you mean `sslmode`?"),
        ("Host=h;Password=a;s3cret", "must be quoted"),
        ("Host=h;Password=a;s3=cret", "must be quoted"),
        ("Host=h;Timeout=s3cret", "Timeout must be a whole number"),
        ("Host=h;Pooling=s3cret", "`Pooling` must be true or false"),
        ("Host=h;SSL Password=s3cret", "`SSL Password` is not supported"),
        ("host=h sslpassword=s3cret", "`sslpassword` is not supported"),
        ("postgresql://u:s3cret@x@h/d", "%40"),
        ("postgresql://u:s3cret/x@h/d", "%2F"),
        ("postgresql://u:%zzs3cret@h/d", "%25"),
        ("host=h pool_max=0 password=s3cret", "pool_max must be at least 1"),
        ("host=h pool_max=2 pool_min=3", "pool_min (3) is more than pool_max (2)"),
        ("host=h command_timeout=s3cret", "command_timeout must be a number of seconds"),
        ("host=h port=1,2", "equally long"),
        ("host=h service=x", "PGSERVICEFILE"),
        ("host=h sslrootcert=system sslmode=require", "needs sslmode=verify-full"),
        ("host=h sslnegotiation=direct", "needs sslmode=require"),
        ("host=h sslmode=s3cret", "unknown sslmode (disable"),
        ("host=h target_session_attrs=s3cret", "unknown target_session_attrs (any"),
        ("host=h channel_binding=s3cret", "unknown channel_binding (disable"),
        ("h", "expected postgresql://"),
    ] {
        let told = refused(text);
        assert!(told.contains(words), "{text}: {told}");
        assert!(!told.contains("s3cret") && !told.contains("cret"), "{text}: {told}");
    }
}

#[test]
fn pools_and_time_outs_are_said_in_each_form() {
    let expected = PoolSettings {
        max: Some(20),
        min: Some(5),
        idle_timeout: Some(Duration::from_secs(30)),
        connect_timeout: Some(Duration::from_secs(20)),
        command_timeout: Some(Duration::from_secs(3)),
    };
    for text in [
        "postgresql://h/d?pool_max=20&pool_min=5&idle_timeout=30s&connect_timeout=20&command_timeout=3000ms",
        "host=h dbname=d pool_max=20 pool_min=5 idle_timeout=30 connect_timeout=20 command_timeout=3",
        "Host=h;Database=d;MaxPoolSize=20;MinPoolSize=5;Connection Idle Lifetime=30;Timeout=20;CommandTimeout=3",
    ] {
        let address = Address::parse(text).unwrap();
        assert_eq!(address.pool_settings(), expected, "{text}");
        let url = "postgresql://postgres@h:5432/d?connect_timeout=20";
        assert_eq!(address.expose_url().expose_secret(), url, "{text}");
    }
    let none = Address::parse("postgresql://h/d?connect_timeout=0&command_timeout=0").unwrap().pool_settings();
    assert_eq!((none.connect_timeout, none.command_timeout), (None, Some(Duration::ZERO)));
}

#[test]
fn several_hosts_are_shown_and_handed_on() {
    for (text, url) in [
        ("postgresql://u@h1,h2:5433/d", "postgresql://u@h1:5432,h2:5433/d"),
        ("host=h1,h2 port=6000 user=u dbname=d", "postgresql://u@h1:6000,h2:6000/d"),
        ("postgresql://u@[::1]:6000,127.0.0.1/d", "postgresql://u@[::1]:6000,127.0.0.1:5432/d"),
        ("host=/run/pg,h user=u dbname=d", "postgresql://u@/d?host=%2Frun%2Fpg%2Ch&port=5432%2C5432"),
        ("host=h hostaddr=10.0.0.1 user=u dbname=d", "postgresql://u@h:5432/d?hostaddr=10.0.0.1"),
        ("hostaddr=10.0.0.1 user=u dbname=d", "postgresql://u@10.0.0.1:5432/d"),
        ("postgresql://%2Frun%2Fpg/d?user=u", "postgresql://u@/d?host=%2Frun%2Fpg&port=5432"),
        ("postgresql:///d?user=u&host=h", "postgresql://u@h:5432/d"),
    ] {
        let address = Address::parse(text).unwrap();
        assert_eq!(address.to_string(), url, "{text}");
        assert_eq!(Address::parse(url).unwrap().to_string(), url, "{text}");
    }
}

#[test]
fn a_text_that_leaves_things_out_is_completed() {
    let main =
        "postgresql://app:pw@h1:6000,h2:6001/trip?target_session_attrs=read-write&pool_max=7&sslcert=/c&sslkey=/k";
    let main = Address::parse(main).unwrap();
    for (text, url, password, certificate) in [
        ("dbname=acme", "postgresql://app@h1:6000,h2:6001/acme", Some("pw"), true),
        ("Database=acme", "postgresql://app@h1:6000,h2:6001/acme", Some("pw"), true),
        ("postgresql:///acme", "postgresql://app@h1:6000,h2:6001/acme", Some("pw"), true),
        ("postgresql://db2.local/acme", "postgresql://app@db2.local:5432/acme", Some("pw"), true),
        ("port=7000", "postgresql://app@h1:7000,h2:7000/trip", Some("pw"), true),
        ("user=other dbname=acme", "postgresql://other@h1:6000,h2:6001/acme", None, false),
        ("Username=other;Password=x", "postgresql://other@h1:6000,h2:6001/trip", Some("x"), false),
        ("dbname=acme pool_max=2", "postgresql://app@h1:6000,h2:6001/acme", Some("pw"), true),
    ] {
        let tenant = main.by_way_of(text).unwrap();
        assert_eq!(tenant.to_string(), url, "{text}");
        assert_eq!(secret(&tenant), password, "{text}");
        assert_eq!(tenant.session_kind(), SessionKind::ReadWrite, "{text}");
        assert_eq!(tenant.client_certificate().0.is_some(), certificate, "{text}");
        let max = if text.contains("pool_max") { 2 } else { 7 };
        assert_eq!(tenant.pool_settings().max, Some(max), "{text}");
    }
    let system = Address::parse("postgresql://app@h/d?sslrootcert=system").unwrap();
    assert_eq!(system.by_way_of("dbname=x").unwrap().tls_mode(), TlsMode::VerifyFull);
    assert_eq!(system.by_way_of("host=h2 sslmode=disable").unwrap().tls_mode(), TlsMode::Disable);
}

fn surroundings(folder: &Path, variables: &[(&str, &str)]) -> Surroundings {
    Surroundings::from_variables(|name| match name {
        "HOME" => Some(folder.display().to_string()),
        name => variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
    })
}

#[test]
fn what_is_explicit_comes_before_variables_and_those_before_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let around = surroundings(
        folder.path(),
        &[
            ("PGHOST", "envhost"),
            ("PGHOSTADDR", "10.0.0.9"),
            ("PGPORT", "6000"),
            ("PGDATABASE", "envdb"),
            ("PGUSER", "envuser"),
            ("PGPASSWORD", "envpw"),
            ("PGSSLMODE", "require"),
            ("PGCONNECT_TIMEOUT", "4"),
            ("PGTARGETSESSIONATTRS", "standby"),
            ("PGCHANNELBINDING", "disable"),
            ("PGOPTIONS", "-c a=b"),
        ],
    )
    .with_user("me");
    let read = |text: &str| Address::parse_with(text, &around).unwrap();
    let all = read("");
    assert_eq!(all.to_string(), "postgresql://envuser@envhost:6000/envdb?hostaddr=10.0.0.9&sslmode=require");
    assert_eq!(secret(&all), Some("envpw"));
    assert_eq!(
        (all.session_kind(), all.pool_settings().connect_timeout),
        (SessionKind::Standby, Some(Duration::from_secs(4)))
    );
    assert_eq!(all.config("", "").get_options(), Some("-c a=b"));
    let url =
        read("postgresql://u:p@h:1/d?sslmode=disable&target_session_attrs=any&connect_timeout=9&options=-c%20x%3Dy");
    assert_eq!((url.to_string().as_str(), secret(&url)), ("postgresql://u@h:1/d", Some("p")));
    assert_eq!((url.session_kind(), url.tls_mode()), (SessionKind::Any, TlsMode::Disable));
    assert_eq!(url.pool_settings().connect_timeout, Some(Duration::from_secs(9)));
    assert_eq!(url.config("", "").get_options(), Some("-c x=y"));
    // As psql: the name of who runs it, and nothing else without variables.
    let bare = Address::parse_with("host=h", &surroundings(folder.path(), &[]).with_user("me")).unwrap();
    assert_eq!(bare.to_string(), "postgresql://me@h:5432/me");
}

#[test]
fn the_password_file_is_used_when_it_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".pgpass");
    std::fs::write(
        &file,
        "# comment\nh:5432:d:other:no\nh2:*:*:u:second\nh:5432:d:u:it\\:is\nlocalhost:*:*:u:socket\n",
    )
    .unwrap();
    let mode = |mode: u32| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let around = surroundings(folder.path(), &[]);
    let read = |text: &str| {
        let address = Address::parse_with(text, &around).unwrap();
        address.password().map(|secret| secret.expose_secret().to_owned())
    };
    mode(0o600);
    assert_eq!(read("postgresql://u@h/d").as_deref(), Some("it:is"));
    assert_eq!(read("postgresql://u@x,h2/d").as_deref(), Some("second"));
    assert_eq!(read("postgresql://u:own@h/d").as_deref(), Some("own"));
    assert_eq!(read("host=/tmp user=u dbname=d").as_deref(), Some("socket"));
    assert_eq!(read("postgresql://v@h/d"), None);
    let named = format!("host=h dbname=d user=u passfile={}", file.display());
    assert_eq!(Address::parse(&named).unwrap().password().unwrap().expose_secret(), "it:is");
    for open in [0o640, 0o604] {
        mode(open);
        assert_eq!(read("postgresql://u@h/d"), None, "{open:o}");
        assert!(Address::parse(&named).unwrap().password().is_none(), "{open:o}");
    }
    let missing = refused("host=h passfile=/there/is/none");
    assert!(missing.contains("cannot read passfile /there/is/none"), "{missing}");
}

#[test]
fn a_service_and_the_files_at_home_are_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join(".pg_service.conf"),
        "# services\n[other]\nhost=no\n\n[trip]\nhost=db.local\nport=6000\nuser=svc\npassword=svcpw\n[more]\nport=1\n",
    )
    .unwrap();
    let around = surroundings(folder.path(), &[("PGUSER", "envuser"), ("PGDATABASE", "envdb")]);
    let address = Address::parse_with("service=trip port=6001", &around).unwrap();
    assert_eq!(address.to_string(), "postgresql://svc@db.local:6001/envdb");
    assert_eq!(secret(&address), Some("svcpw"));
    let error = Address::parse_with("service=trap", &around).unwrap_err().to_string();
    assert!(error.contains("there is no service `trap`"), "{error}");

    let certificates = folder.path().join(".postgresql");
    std::fs::create_dir(&certificates).unwrap();
    for name in ["root.crt", "postgresql.crt", "postgresql.key"] {
        std::fs::write(certificates.join(name), "").unwrap();
    }
    let address = Address::parse_with("postgresql://h/d?sslmode=require&sslkey=/own", &around).unwrap();
    assert_eq!(address.root_certificates(), Some(&*certificates.join("root.crt")));
    assert_eq!(address.client_certificate(), (Some(&*certificates.join("postgresql.crt")), Some(Path::new("/own"))));
}
