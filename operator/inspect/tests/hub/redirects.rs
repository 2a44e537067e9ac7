//! Where a hub may send whoever asks it: nowhere inside, nowhere that is not on the list, and never
//! with the token.

use berth_inspect::{
    Selection,
    redirects::{Hosts, Redirects},
    settings::Settings,
};

use crate::{
    models::EIGHT,
    server::{COMMIT, Fault, Server},
};

fn only(server: &Server, hosts: &str) -> Settings {
    Settings { redirects: Redirects::Only(hosts.parse().unwrap()), ..server.settings() }
}

fn path(name: &str) -> String {
    format!("/org/name/resolve/{COMMIT}/{name}")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_hosts_are_followed_and_none_gets_the_token() {
    let (hub, storage) =
        (Server::of(EIGHT.repository(2)).await, Server::of(EIGHT.repository(2)).await);
    let to = format!("http://{}{}", storage.address, path("config.json"));
    hub.wrong("config.json", usize::MAX, Fault::Redirect(to));
    let error = hub.ask(only(&hub, ""), Selection::default()).await.unwrap_err();
    assert_eq!(
        hub.told(&error, "redirected", true).replace(&storage.address.to_string(), "STORAGE"),
        "HUB redirects to STORAGE, which is not in the list of hosts that it may redirect to; \
         nothing is asked there, and an administrator can allow it"
    );
    assert_eq!(storage.requests().len(), 0);

    let settings = only(&hub, &storage.address.to_string());
    assert!(hub.ask(settings, Selection::default()).await.unwrap().exact);
    let seen = storage.requests();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].1.contains_key("authorization"));
    assert!(hub.requests().iter().all(|(_, headers)| headers.contains_key("authorization")));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_host_is_followed_on_its_own_port() {
    let hub = Server::of(EIGHT.repository(2)).await;
    hub.wrong("config.json", 1, Fault::Redirect(path("config.json")));
    assert!(hub.ask(only(&hub, ""), Selection::default()).await.unwrap().exact);
    for to in ["http://127.0.0.1:9/x", "http://127.1:10250/x", "http://localhost/x"] {
        hub.wrong("config.json", 1, Fault::Redirect(to.to_owned()));
        let error = hub.ask(only(&hub, ""), Selection::default()).await.unwrap_err();
        hub.told(&error, "redirected", true);
    }
    hub.wrong("config.json", 1, Fault::Redirect("ftp://x/y".to_owned()));
    let error = hub.ask(only(&hub, ""), Selection::default()).await.unwrap_err();
    let told = hub.told(&error, "nonsense", true);
    assert_eq!(told, "HUB answers with a redirect to something that is not http");
    hub.wrong("config.json", usize::MAX, Fault::Redirect(path("config.json")));
    let error = hub.ask(only(&hub, ""), Selection::default()).await.unwrap_err();
    let told = hub.told(&error, "nonsense", true);
    assert_eq!(told, "HUB redirects in a circle, or more than 10 times");
}

/// The endpoint is public as far as the guard can tell: it is not asked, a name of the list is.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_name_that_leads_inside_is_not_connected_to() {
    let inside = Server::of(EIGHT.repository(2)).await;
    let hosts: Hosts = format!("localhost:{}", inside.address.port()).parse().unwrap();
    let url = format!("http://localhost:{}/x", inside.address.port()).parse().unwrap();
    let public = "http://192.0.1.1".parse().unwrap();
    let settings =
        Settings { endpoint: public, redirects: Redirects::Only(hosts), ..inside.settings() };
    let http = berth_inspect::http::Http::new(settings).unwrap();
    let refused = |_| unreachable!("nobody answers");
    let failure = http.ask(url, berth_inspect::http::Ask::Headers, refused).await.err().unwrap();
    let berth_inspect::error::Failure::Permanent(error) = failure else {
        panic!("{failure:?}");
    };
    let told = error.to_string();
    assert!(
        told.starts_with(&format!(
            "192.0.1.1 redirects to localhost:{}, which resolves to ",
            inside.address.port()
        )) && told.contains(", an address inside the cluster or the site;"),
        "{told}"
    );
    assert_eq!(inside.requests().len(), 0);
}
