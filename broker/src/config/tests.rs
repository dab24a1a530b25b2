use super::*;
use std::collections::BTreeMap;

const GOOD: &str = "data = \"d\"\n[tls]\ncertificate = \"c.pem\"\nkey = \"/k.pem\"\n[tokens]\nkeys = [\"t.pub\"]\n";

const OUTLET: &str = "[outlet.sms]\nurl = \"https://gateway.example/ding\"\nsecret_files = [\"sms.secret\"]\n";

/// Keys that have no default.
const REQUIRED: [&str; 6] =
    ["data", "tls.certificate", "tls.key", "tokens.keys", "outlet.<name>.url", "outlet.<name>.secret_files"];

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/carillon/carillon.toml"))
}

fn check(text: &str, line: usize, remedy: &str) {
    let message = parse(text).unwrap_err().to_string();
    let place = format!("/etc/carillon/carillon.toml, line {line}, column ");
    assert!(message.starts_with(&place), "{message:?} does not say {place:?}");
    assert!(!message.contains('\n'), "{message:?} is more than one line");
    assert!(message.contains(remedy), "{message:?} does not say {remedy:?}");
}

#[test]
fn defaults_fill_in_and_paths_are_relative_to_the_file() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.data, Path::new("/etc/carillon/d"));
    assert_eq!(config.tls.key, Path::new("/k.pem"));
    assert_eq!(config.listen, listen_default());
    assert_eq!(config.edges, 0);
    assert_eq!(config.http, Http::default());
    assert_eq!(config.network, Network::default());
}

#[test]
fn errors_name_the_line_and_the_remedy() {
    check(&GOOD.replace("data", "date"), 1, "unknown field `date`");
    check(&GOOD.replace("\"d\"", "\"\""), 1, "name a file or directory");
    check(&GOOD.replace("[\"t.pub\"]", "[]"), 6, "name at least one public key");
    check(&format!("edges = 65\n{GOOD}"), 1, "65 is out of bounds: give 0 to 64");
    check(&format!("edges = -1\n{GOOD}"), 1, "-1");
    check(&format!("edges = \"two\"\n{GOOD}"), 1, "invalid type");
    check(&format!("listen = \"nowhere\"\n{GOOD}"), 1, "\"nowhere\" is no address: give IP and port");
    check(&format!("{GOOD}[http]\nlisten = \":80\"\n"), 8, "give IP and port");
    check(&format!("{GOOD}[http]\nport = 80\n"), 8, "unknown field `port`, expected `listen`");
    for level in ["a=b=c", "debugg", "", "warn,", "carillon=debug,warm", "info, debugg"] {
        check(&format!("{GOOD}[log]\nlevel = \"{level}\"\n"), 8, "is no log level");
    }
    check(&format!("{GOOD}[log]\nformat = \"xml\"\n"), 8, "expected `text` or `json`");
    check(&format!("{GOOD}[network]\nidle_timeout_ms = 10\n"), 8, "give 5000 to 600000");
    check(&format!("{GOOD}[network]\nretry_from = 4097\n"), 8, "4097 is out of bounds: give 0 to 4096");
    check(&format!("{GOOD}[network]\npinned_bytes_max = 1\n"), 8, "give 67108864 to 1099511627776");
    check(&format!("{GOOD}[receipts]\nnamed_members_max = 1001\n"), 8, "give 0 to 1000");
    check(&format!("{GOOD}[receipts]\ncounts_every_ms = 9\n"), 8, "give 10 to 60000");
    check(&format!("{GOOD}[network\n"), 7, "expected");
}

#[test]
fn errors_of_outlets_name_the_line_and_the_remedy() {
    let outlet = |name: &str, more: &str| format!("{GOOD}{}{more}\n", OUTLET.replace("sms]", &format!("{name}]")));
    check(&outlet("app", ""), 7, "app is the broker itself");
    check(&outlet("sms", "id = 3"), 7, "sms has the id 2: leave `id` out");
    check(&outlet("pager", ""), 7, "give it an `id` of 64 to 255");
    check(&outlet("pager", "id = 63"), 7, "give it an `id` of 64 to 255");
    check(&outlet("pager", "id = 256"), 10, "256 is out of bounds");
    check(&outlet("Pager", "id = 64"), 7, "is no name");
    let two = format!("{}{}id = 70\n", outlet("fax", "id = 70"), OUTLET.replace("sms", "telex"));
    check(&two, 11, "telex has the id 70 of fax");
    let one_more = |n: usize| format!("{}id = {}\n", OUTLET.replace("sms]", &format!("n{}]", 10 + n)), 100 + n);
    let many: String = (0..33).map(one_more).collect();
    check(&format!("{GOOD}{many}"), 7 + 32 * 4, "more than 32 outlets");
    let with = |from: &str, to: &str| format!("{GOOD}{}", OUTLET.replace(from, to));
    check(&with("https://gateway.example/ding", "gateway"), 8, "neither https:// nor http://");
    check(&with("https:", "http:"), 7, "is not encrypted: write https://, set `plain = true`");
    check(&with("https://gateway.example", "http://127.0.0.1:80"), 7, "allow = [\"127.0.0.0/8\"");
    check(&with("[\"sms.secret\"]", "[]"), 9, "name 1 to 3 files");
    check(&with("[\"sms.secret\"]", "[\"\"]"), 9, "an empty path");
    check(&with("secret_files", "secret_file"), 9, "unknown field `secret_file`");
    check(&outlet("sms", "allow = [\"10.0.0.1\"]"), 10, "is no range");
    check(&outlet("sms", "concurrency = 0"), 10, "give 1 to 256");
    check(&outlet("sms", "calls_a_second = 0"), 10, "give 1 to 10000");
    check(&outlet("sms", "tries_max = 1001"), 10, "give 1 to 1000");
    check(&outlet("sms", "tries_for_s = 0"), 10, "give 1 to 86400");
    check(&outlet("sms", "timeout_ms = 1000"), 7, "connect_timeout_ms is a part");
    check(&format!("{GOOD}[callbacks]\nlisten = \":80\"\n"), 8, "give IP and port");
}

#[test]
fn an_outlet_is_what_the_outlets_are_told() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("sms.secret"), "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n").unwrap();
    let more = "allow = [\"127.0.0.0/8\"]\nconcurrency = 3\ncalls_a_second = 4\ntries_max = 5\ntries_for_s = 7\ntimeout_ms = 600\n\
                connect_timeout_ms = 500\nplain = true\n";
    let text = format!("{GOOD}{}{more}", OUTLET.replace("https", "http"));
    let config = Config::parse(&text, &directory.path().join("carillon.toml")).unwrap();
    let [outlet] = <[_; 1]>::try_from(config.outlets().unwrap()).unwrap();
    assert_eq!((outlet.id.0, outlet.name.as_str(), outlet.plain), (2, "sms", true));
    assert_eq!((outlet.concurrency, outlet.calls_a_second, outlet.tries_max), (3, 4, 5));
    assert_eq!(outlet.tries_for.as_secs(), 7);
    assert_eq!((outlet.timeout.as_millis(), outlet.connect_timeout.as_millis()), (600, 500));
    assert_eq!((outlet.allow.len(), outlet.tls.is_none()), (1, true));
    // A gateway on this machine needs no TLS, if this machine may be called.
    let local = OUTLET.replace("https://gateway.example", "http://localhost:80");
    assert!(parse(&format!("{GOOD}{local}allow = [\"127.0.0.1/32\"]\n")).is_ok());
    // What is shown can be read again.
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
}

#[test]
fn the_network_is_what_transport_and_edges_are_told() {
    let text = "[network]\nidle_timeout_ms = 5001\nconnections_max = 3\nreceive_buffer_bytes = 70001\n\
                send_buffer_bytes = 70002\nretry_from = 7\npinned_bytes_max = 70000000\n";
    let network = parse(&format!("{GOOD}{text}")).unwrap().network;
    let transport = network.transport();
    let told = (transport.idle_timeout_ms, transport.connections_max, transport.incoming_retry_from);
    assert_eq!(told, (5_001, 3, 7));
    assert_eq!((transport.socket_receive_buffer_bytes, transport.socket_send_buffer_bytes), (70_001, 70_002));
    assert_eq!(network.limits(), Limits { pinned_bytes_max: 70_000_000, ..Limits::default() });
    assert_eq!(Network::default().transport(), carillon_transport::TransportConfig::server());
    assert_eq!(Network::default().limits(), Limits::default());
}

#[test]
fn the_receipts_are_what_edges_are_told() {
    let text = "[network]\npinned_bytes_max = 70000000\n[receipts]\nnamed_members_max = 3\ncounts_every_ms = 70\n";
    let told =
        Limits { pinned_bytes_max: 70_000_000, receipts_live_members_max: 3, counts_every_ms: 70, ..Limits::default() };
    assert_eq!(parse(&format!("{GOOD}{text}")).unwrap().limits(), told);
    assert_eq!(parse(GOOD).unwrap().limits(), Limits::default());
}

#[test]
fn an_empty_address_turns_http_off() {
    let config = parse(&format!("{GOOD}[http]\nlisten = \"\"\n")).unwrap();
    assert_eq!(config.http.listen, None);
    assert!(config.to_toml().contains("[http]\nlisten = \"\""), "{}", config.to_toml());
}

#[test]
fn what_is_written_is_read_alike() {
    let text = format!("drain_ms = 7\n{GOOD}[log]\nformat = \"json\"\n[renewal]\ncheck_every_s = 0\n");
    let config = parse(&text).unwrap();
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
}

/// Every key with its default, as TOML writes it.
fn keys() -> BTreeMap<String, String> {
    let table: toml::Table = parse(&format!("{GOOD}{OUTLET}")).unwrap().to_toml().parse().unwrap();
    let mut keys = BTreeMap::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(section) => {
                for (key, value) in section {
                    match value {
                        toml::Value::Table(outlet) => keys.extend(
                            outlet.into_iter().map(|(key, value)| (format!("{name}.<name>.{key}"), value.to_string())),
                        ),
                        value => drop(keys.insert(format!("{name}.{key}"), value.to_string())),
                    }
                }
            }
            value => drop(keys.insert(name, value.to_string())),
        }
    }
    *keys.get_mut("outlet.<name>.id").unwrap() = "of the name".into();
    for required in REQUIRED {
        *keys.get_mut(required).unwrap() = "required".into();
    }
    keys
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let every_line: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())) {
            Some(commented_out) => format!("{commented_out}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let as_it_is = parse(EXAMPLE).unwrap();
    assert_eq!(parse(&every_line).unwrap(), as_it_is, "what is commented out is the default");
    let table: toml::Table = every_line.parse().unwrap();
    for key in keys().keys().filter(|key| !key.starts_with("outlet.")) {
        let (section, name) = key.split_once('.').map_or((None, key.as_str()), |(section, name)| (Some(section), name));
        let holder = section.map_or(&table, |section| table[section].as_table().unwrap());
        assert!(holder.contains_key(name), "{key} is missing in packaging/carillon.toml");
    }
}

#[test]
fn the_example_shows_every_key_of_an_outlet_with_its_default() {
    let begin = EXAMPLE.lines().skip_while(|line| *line != "# [outlet.sms]");
    let shown: Vec<_> = begin.map_while(|line| line.strip_prefix("# ")).collect();
    let shown = shown.join("\n");
    assert_eq!(parse(&format!("{GOOD}{shown}")).unwrap(), parse(&format!("{GOOD}{OUTLET}")).unwrap());
    for key in keys().keys().filter_map(|key| key.strip_prefix("outlet.<name>.")) {
        assert!(shown.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key} is missing");
    }
}

#[test]
fn the_reference_has_every_key_with_its_default() {
    let page = include_str!("../../../docs/OPERATIONS.md");
    let table = page.split("\n| key | default | meaning |\n").nth(1).expect("the table of keys");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let documented: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
            assert!(cells[3].len() > 10, "{row} explains nothing");
            (cells[1].clone(), cells[2].clone())
        })
        .collect();
    assert_eq!(documented, keys());
}

#[test]
fn blanks_around_log_levels_mean_nothing() {
    for (level, means) in
        [("info, sled=warn", "info,sled=warn"), (" info ", "info"), ("carillon=debug, warn", "carillon=debug,warn")]
    {
        let parts = |text: &str| text.split(',').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(parts(&log_filter(level).unwrap().to_string()), parts(means), "{level:?}");
    }
}

#[test]
fn plans_name_outlets_that_are_there_and_errors_their_line() {
    let own = "[outlet.sms]\nurl = \"https://gateway.example/\"\nsecret_files = [\"s\"]\n[outlet.pager]\nid = 64\n\
               url = \"https://gateway.example/\"\nsecret_files = [\"s\"]\n";
    let steps = "[tenant.acme.ding]\noutlets = [\"app\", \"sms\"]\nsteps = [\n{ outlet = \"app\" },\n\
                 { outlet = \"pager\", after_s = 60, every_s = 30, times = 2 },\n]\n";
    let quiet =
        "[tenant.acme.ding.quiet]\nfrom = \"22:00\"\nto = \"07:30\"\ntime_zone = \"UTC\"\noutlets = [\"sms\"]\n";
    let config = parse(&format!("{GOOD}{own}{steps}{quiet}")).unwrap();
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
    let policies = config.ding_policies();
    let acme = policies.of("acme");
    let plan: Vec<_> =
        acme.steps.iter().map(|step| (step.outlet.0, step.after_ms, step.repeat_every_ms, step.times)).collect();
    assert_eq!(plan, [(1, 0, 0, 1), (64, 60_000, 30_000, 2)]);
    assert_eq!(acme.quiet.as_ref().map(|quiet| (quiet.from_min, quiet.to_min)), Some((22 * 60, 7 * 60 + 30)));
    assert_eq!(*policies.of("other"), crate::dings::DingPolicy::default());

    check(&format!("{GOOD}{steps}"), 11, "\"pager\" is no outlet: name it in [outlet.pager], or use \"app\"");
    let ding = |lines: &str| format!("{GOOD}[ding]\n{lines}\n");
    check(&ding("steps = [{ outlet = \"app\", times = 2 }]"), 8, "needs every_s");
    check(&ding("steps = []"), 1, "a plan has 1 to 8 steps");
    check(&ding("senders = \"someone\""), 8, "expected one of `everyone`, `managers`, `nobody`");
    check(&ding("per_sender_a_minute = -1"), 8, "-1");
    let odd = "[ding.quiet]\nto = \"07:00\"\noutlets = []\n";
    check(&format!("{GOOD}{odd}time_zone = \"UTC\"\nfrom = \"25:00\"\n"), 11, "is no time of the day");
    check(&format!("{GOOD}{odd}from = \"22:00\"\ntime_zone = \"Nowhere/Land\"\n"), 11, "give a time zone as in");
}
