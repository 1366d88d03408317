use std::io::Write as _;

use secrecy::ExposeSecret as _;

use super::*;

fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load_with(Some(file.path()), &variables)
}

const PROD: &str = "owner = \"fleet\"\n[hubs.prod]\nmanifests = \"/m\"\nconnection_string_file = \"/c\"\n";

#[test]
fn a_file_gives_settings_and_the_rest_is_default() {
    let settings = load_text(&format!("{PROD}sweep = \"90s\"\nguards.removals = \"5%\"\n"), &[]).unwrap();
    let prod = &settings.hubs["prod"];
    assert_eq!((settings.owner.as_deref(), settings.listen.as_str()), (Some("fleet"), LISTEN_DEFAULT));
    assert_eq!((prod.sweep, prod.verify, prod.guards.from), (Duration::from_secs(90), VERIFY_DEFAULT, 10));
    assert!((prod.guards.removals - 0.05).abs() < 1e-9);
}

#[test]
fn mode_suspension_ownership_and_guards_come_from_file_and_environment() {
    let more =
        "ownership = \"none\"\nsuspend = true\n[hubs.prod.guards]\ncreates = \"7%\"\nupdates = \"50%\"\nfrom = 3\n";
    let settings = load_text(&format!("mode = \"upsert\"\n{PROD}{more}"), &[]).unwrap();
    let prod = &settings.hubs["prod"];
    assert_eq!((settings.mode, settings.suspend, prod.seals, prod.suspend), (ModeSetting::Upsert, false, false, true));
    let guards = GuardSettings { creates: 0.07, updates: 0.5, from: 3, ..GuardSettings::default() };
    assert_eq!(prod.guards, guards);
    let variables = [
        ("GEMINID_MODE", "observe"),
        ("GEMINID_SUSPEND", "true"),
        ("GEMINID_HUBS_PROD_GUARDS_CREATES", "10%"),
        ("GEMINID_HUBS_PROD_GUARDS_UPDATES", "20%"),
        ("GEMINID_HUBS_PROD_GUARDS_FROM", "0"),
        ("GEMINID_HUBS_PROD_OWNERSHIP", "none"),
        ("GEMINID_HUBS_PROD_SUSPEND", "true"),
    ];
    let settings = load_text(PROD, &variables).unwrap();
    let prod = &settings.hubs["prod"];
    assert_eq!((settings.mode, settings.suspend, prod.seals, prod.suspend), (ModeSetting::Observe, true, false, true));
    assert_eq!(prod.guards, GuardSettings { creates: 0.1, updates: 0.2, from: 0, ..GuardSettings::default() });
}

#[test]
fn a_hub_of_no_named_tier_is_taken_for_the_smallest_and_none_has_no_limit() {
    let prod = |more: &str, variables: &[(&str, &str)]| {
        load_text(&format!("{PROD}{more}"), variables).map(|settings| settings.hubs["prod"].clone())
    };
    let plain = prod("", &[]).unwrap();
    assert_eq!((plain.tier.as_deref(), plain.units, plain.budget, plain.quota_share), (Some("S1"), 1, 0.5, 0.1));
    let set = prod("tier = \"S3\"\nunits = 2\nbudget = 1\nquota_share = 0.25\n", &[]).unwrap();
    assert_eq!((set.tier.as_deref(), set.units, set.budget, set.quota_share), (Some("S3"), 2, 1.0, 0.25));
    assert_eq!(prod("tier = \"none\"\n", &[]).unwrap().tier, None);
    let variables = [
        ("GEMINID_HUBS_PROD_TIER", "S2"),
        ("GEMINID_HUBS_PROD_UNITS", "3"),
        ("GEMINID_HUBS_PROD_BUDGET", "0.75"),
        ("GEMINID_HUBS_PROD_QUOTA_SHARE", "0.2"),
    ];
    let set = prod("tier = \"S1\"\n", &variables).unwrap();
    assert_eq!((set.tier.as_deref(), set.units, set.budget, set.quota_share), (Some("S2"), 3, 0.75, 0.2));
    for (more, named) in [("budget = 0\n", "hubs.prod.budget"), ("quota_share = 1.5\n", "hubs.prod.quota_share")] {
        let error = prod(more, &[]).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("more than 0 and at most 1"), "{error}");
    }
}

#[test]
fn the_environment_goes_over_the_file_and_underscores_in_a_hub_s_name_are_dashes() {
    let variables = [
        ("GEMINID_OWNER", "other"),
        ("GEMINID_HUBS_PROD_SWEEP", "1h"),
        ("GEMINID_HUBS_EU_WEST_CONNECTION_STRING", "HostName=h;SharedAccessKeyName=p;SharedAccessKey=canary"),
        ("GEMINID_HUBS_EU_WEST_MANIFESTS", "/eu"),
        ("GEMINID_HUBS_EU_WEST_GUARDS_REMOVALS", "1%"),
        ("GEMINID_SERVICE_HOST", "10.0.0.1"),
        ("GEMINID_PORT", "tcp://10.0.0.1:9797"),
        ("GEMINID_PORT_9797_TCP", "x"),
        ("https_proxy", "http://proxy:3128"),
    ];
    let settings = load_text(PROD, &variables).unwrap();
    assert_eq!(settings.owner.as_deref(), Some("other"));
    assert_eq!(settings.hubs["prod"].sweep, Duration::from_secs(3600));
    assert_eq!(settings.https_proxy.as_ref().map(SecretString::expose_secret), Some("http://proxy:3128"));
    let LoginSettings::ConnectionString(Secret::Value(secret)) = &settings.hubs["eu-west"].login else {
        panic!("a connection string from the environment")
    };
    assert!(secret.expose_secret().ends_with("canary"));
    assert!(!format!("{settings:?}").contains("canary"));
}

#[test]
fn the_prefix_of_metrics_is_a_text_in_the_file_and_in_the_environment() {
    assert_eq!(load_text(PROD, &[]).unwrap().metric_prefix, None);
    let text = format!("metric_prefix = \"fleet_\"\n{PROD}");
    assert_eq!(load_text(&text, &[]).unwrap().metric_prefix.as_deref(), Some("fleet_"));
    let over = [("GEMINID_METRIC_PREFIX", "iot_")];
    assert_eq!(load_text(&text, &over).unwrap().metric_prefix.as_deref(), Some("iot_"));
}

#[test]
fn allowed_paths_are_a_list_in_the_file_and_in_the_environment() {
    let file = load_text(&format!("{PROD}allow = [\"tags.location\"]\n"), &[]).unwrap();
    assert_eq!(file.hubs["prod"].allow, ["tags.location"]);
    let over = [("GEMINID_HUBS_PROD_ALLOW", "tags.a, properties.desired.b")];
    let both = load_text(&format!("{PROD}allow = [\"tags.location\"]\n"), &over).unwrap();
    assert_eq!(both.hubs["prod"].allow, ["tags.a", "properties.desired.b"]);
}

#[test]
fn what_does_not_fit_is_refused_in_one_line_with_its_place() {
    for (text, variables, expected) in [
        ("ownr = \"x\"", vec![], ": ownr: unknown key; did you mean owner?"),
        ("[hubs.prod]\nmanifest = \"x\"", vec![], "hubs.prod.manifest: unknown key; did you mean manifests?"),
        ("[hub.prod]\nmanifests = \"x\"", vec![], ": hub: unknown key; did you mean hubs?"),
        ("[hubs.prod]\nzzz = 1", vec![], "hubs.prod.zzz: unknown key; keys here are manifests, "),
        ("[hubs.eu-1]\nconnection_string = 1", vec![], "or set GEMINID_HUBS_EU_1_CONNECTION_STRING"),
        ("owner = \"o\"\nlisten = ", vec![], ":2:10: not valid TOML: "),
        ("owner = \"o\"\nowner = \"p\"", vec![], ":2:1: not valid TOML: duplicate key"),
        ("owner = 1", vec![], ": owner: a whole number was given; write a text in quotes, such as \"fleet-prod\""),
        ("suspend = \"yes\"", vec![], ": suspend: a text was given; write true or false, without quotes"),
        ("hubs = 3", vec![], ": hubs: a whole number was given; write [hubs.NAME], and its keys in the lines below"),
        ("hubs.prod = 3", vec![], ": hubs.prod: a whole number was given; write [hubs.prod], and"),
        ("hubs.prod.guards = 3", vec![], ": hubs.prod.guards: a whole number was given; write [hubs.prod.guards]"),
        ("hubs.prod.guards.removals = 30", vec![], "hubs.prod.guards.removals: a whole number was given; write a text"),
        ("hubs.prod.units = 1.5", vec![], ": hubs.prod.units: a number with a fraction was given; write a whole"),
        ("hubs.prod.units = -1", vec![], ": hubs.prod.units: a whole number was given; write a whole number from 0 to"),
        ("hubs.prod.budget = \"1\"", vec![], ": hubs.prod.budget: a text was given; write a number such as 0.5"),
        ("hubs.prod.allow = \"tags\"", vec![], ": hubs.prod.allow: a text was given; write a list of texts"),
        ("listen = \"nope\"", vec![], "listen: \"nope\" is no address; write 127.0.0.1:9797"),
        ("api_listen = \":9797\"", vec![], "api_listen: \":9797\" is no address"),
        ("log_level = \"loud\"", vec![], "log_level: \"loud\" is none of error, warn, info, debug and trace"),
        ("", vec![("GEMINID_LOG_LEVEL", "info,loud")], "log_level: \"loud\" is none of"),
        (PROD, vec![("GEMINID_HUBS_PROD_UNITS", "two")], "GEMINID_HUBS_PROD_UNITS does not fit; write a whole number"),
        (PROD, vec![("GEMINID_SUSPEND", "later")], "GEMINID_SUSPEND does not fit; write true or false"),
        (PROD, vec![("GEMINID_HUBS_PROD_BUDGET", "half")], "GEMINID_HUBS_PROD_BUDGET does not fit; write a number"),
        ("mode = \"dry\"", vec![], "mode: \"dry\" is none of sync, upsert and observe"),
        ("suspend = \"later\"", vec![], "suspend"),
        (PROD, vec![("GEMINID_HUBS_PROD_OWNERSHIP", "tags")], "hubs.prod.ownership: \"tags\" is neither"),
        (PROD, vec![("GEMINID_HUBS_PROD_GUARDS_CREATES", "101%")], "hubs.prod.guards.creates: \"101%\" is no share"),
        ("audit_log = \"\"", vec![], "audit_log: empty; write \"stdout\" or the path of a file"),
        ("log_format = \"xml\"", vec![], "log_format: \"xml\" is neither text nor json"),
        ("[hubs.prod]\nmanifests = \"/m\"", vec![], "hubs.prod.connection_string_file: missing"),
        ("[hubs.prod]\nconnection_string_file = \"/c\"", vec![], "hubs.prod.manifests: missing"),
        ("[hubs.Prod]\nmanifests = \"/m\"", vec![], "a hub's name is"),
        (PROD, vec![("GEMINID_OWNR", "x")], "GEMINID_OWNR is not a setting; known are GEMINID_OWNER"),
        (PROD, vec![("GEMINID_HUBS_PROD_SWEEPS", "x")], "GEMINID_HUBS_PROD_SWEEPS is not a setting"),
        (PROD, vec![("GEMINID_HUBS_PROD_SWEEP", "soon")], "hubs.prod.sweep: \"soon\" is no duration"),
        (PROD, vec![("GEMINID_HUBS_PROD_SWEEP", "10ms")], "hubs.prod.sweep: 10ms is shorter than 1s"),
        (PROD, vec![("GEMINID_HUBS_PROD_GUARDS_REMOVALS", "30")], "\"30\" is no share"),
        (PROD, vec![("GEMINID_HUBS_PROD_CONNECTION_STRING", "x")], "given twice"),
    ] {
        let error = load_text(text, &variables).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{text:?} {variables:?}: {error}");
    }
    for (file, expected) in [("/nowhere.toml", "cannot read /nowhere.toml: No such file"), ("/", "cannot read /: Is a")]
    {
        let error = load_with(Some(Path::new(file)), &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_log_level_is_a_level_or_has_directives() {
    for level in ["info", "WARN", "off", "info,geminid::hub=debug", "geminid=trace"] {
        assert_eq!(load_text(&format!("log_level = {level:?}\n{PROD}"), &[]).unwrap().log_level, level);
    }
}

#[test]
fn a_connection_string_in_any_wrong_place_is_refused_without_being_repeated() {
    const STRING: &str = "HostName=h;SharedAccessKeyName=p;SharedAccessKey=canary";
    for text in [
        format!("[hubs.prod]\nconnection_string = {STRING}"),
        format!("[hubs.prod]\nconnection_string = \"{STRING}\""),
        format!("[hubs.prod]\nconnection_string_file = \"{STRING}\""),
        format!("[hubs.prod]\nhost = \"{STRING}\""),
        format!("[hubs.prod]\nmanifests = \"{STRING}"),
        format!("[hubs.prod]\nmanifests = '{STRING}' x"),
        format!("[hubs]\nprod = \"{STRING}\""),
        format!("hubs = \"{STRING}\""),
        format!("listen = \"{STRING}\""),
        format!("[hubs.prod.guards]\nfrom = \"{STRING}\""),
        format!("[hubs.prod]\nallow = [\"{STRING}\"]"),
        STRING.to_owned(),
    ] {
        let error = load_text(&text, &[]).unwrap_err().to_string();
        assert!(!error.contains("canary") && !error.contains('\n'), "{error}");
    }
    for name in ["GEMINID_HUBS_PROD_CONNECTION_STRING_FILE", "GEMINID_HUBS_PROD_UNITS", "GEMINID_OWNER"] {
        let error = load_text(PROD, &[(name, STRING)]).unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("canary"), "{error}");
    }
}
