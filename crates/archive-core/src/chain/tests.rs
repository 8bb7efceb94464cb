use super::signature::tests::key;
use super::*;
use proptest::prelude::*;

/// A manifest, as far as the chain is concerned.
#[derive(Serialize, Deserialize)]
struct Document {
    rows: u32,
    #[serde(default)]
    previous: Option<Vec<Link>>,
    #[serde(default)]
    signature: Option<Signature>,
}

impl Chained for Document {
    fn ends(&mut self) -> (&mut Option<Vec<Link>>, &mut Option<Signature>) {
        (&mut self.previous, &mut self.signature)
    }
}

/// A bucket that is written to, with what the writer remembers.
#[derive(Clone, Default)]
struct Bucket {
    stored: Vec<(String, String)>,
    links: Vec<Expected>,
    heads: Vec<Link>,
    signs: bool,
}

impl Bucket {
    fn put<T: Chained>(&mut self, key: &str, document: &mut T) -> Link {
        let signer = self.signs.then(self::key);
        let sealed = seal(document, std::mem::take(&mut self.heads), signer.as_ref()).unwrap();
        self.stored.push((key.to_owned(), String::from_utf8(sealed.json.to_vec()).unwrap()));
        let link = Link { key: key.to_owned(), sha256: sealed.sha256 };
        let public_key = signer.map(|signer| signer.public_key());
        self.links.push(Expected { link: link.clone(), removed: false, public_key });
        self.heads = vec![link.clone()];
        link
    }

    fn archive(&mut self, number: u32) -> Link {
        self.put(
            &format!("public.t/_manifests/p{number}.v1.json"),
            &mut Document { rows: number, previous: None, signature: None },
        )
    }

    /// Deletes a manifest by right.
    fn remove(&mut self, link: &Link) -> Link {
        let entry = self.entries().into_iter().find(|entry| entry.link == *link).unwrap();
        let Link { key, sha256 } = link.clone();
        let removed = vec![Removed { key, sha256, previous: entry.previous.unwrap() }];
        let at = format!("2026-01-01T00:00:{:02}Z", self.stored.len());
        let mut removal = Removal::new(at.clone(), "expired", removed);
        let written = self.put(&removal_key(&at, &link.sha256), &mut removal);
        self.links.iter_mut().filter(|known| known.link == *link).for_each(|known| known.removed = true);
        self.stored.retain(|(key, _)| *key != link.key);
        written
    }

    fn entries(&self) -> Vec<Entry> {
        self.stored.iter().map(|(key, json)| Entry::of(key, json.as_bytes())).collect()
    }

    fn recorded(&self) -> Recorded {
        let public_keys = self.signs.then(|| self::key().public_key()).into_iter().collect();
        Recorded { links: self.links.clone(), public_keys, ..Recorded::default() }
    }

    fn alone(&self) -> Recorded {
        Recorded { links: Vec::new(), all_signed: self.signs, ..self.recorded() }
    }

    fn problems(&self, recorded: &Recorded) -> Vec<(String, Problem)> {
        check(&self.entries(), recorded).into_iter().map(|found| (found.key, found.problem)).collect()
    }
}

fn chain(length: u32, signs: bool) -> (Bucket, Vec<Link>) {
    let mut bucket = Bucket { signs, ..Bucket::default() };
    let links = (0..length).map(|number| bucket.archive(number)).collect();
    (bucket, links)
}

#[test]
fn what_was_written_is_as_it_was() {
    for signs in [false, true] {
        let (mut bucket, links) = chain(4, signs);
        bucket.remove(&links[1]);
        bucket.remove(&links[3]);
        bucket.archive(9);
        assert_eq!(bucket.problems(&bucket.recorded()), []);
        assert_eq!(bucket.problems(&bucket.alone()), []);
        assert_eq!(unnamed(&bucket.entries()), [&bucket.heads[0]]);
    }
}

#[test]
fn two_that_were_written_at_once_are_both_named_by_the_next() {
    let (mut bucket, links) = chain(1, false);
    let one = bucket.archive(1);
    bucket.heads = vec![links[0].clone()];
    let other = bucket.archive(2);
    assert_eq!(unnamed(&bucket.entries()), [&one, &other]);
    bucket.heads = vec![one.clone(), other];
    let last = bucket.archive(3);
    assert_eq!(unnamed(&bucket.entries()), [&last]);
    bucket.stored.retain(|(key, _)| *key != one.key);
    assert_eq!(bucket.problems(&bucket.alone()), [(one.key, Problem::Missing)]);
}

#[test]
fn the_last_is_missed_by_the_record_alone() {
    let (mut bucket, links) = chain(3, false);
    bucket.stored.pop();
    assert_eq!(bucket.problems(&bucket.alone()), []);
    assert_eq!(bucket.problems(&bucket.recorded()), [(links[2].key.clone(), Problem::Missing)]);
    let head = Expected { link: links[2].clone(), removed: false, public_key: None };
    let noted = Recorded { links: vec![head], ..Recorded::default() };
    assert_eq!(bucket.problems(&noted), [(links[2].key.clone(), Problem::Missing)]);
}

#[test]
fn contents_that_changed_places_are_both_altered() {
    let (mut bucket, links) = chain(4, false);
    let first = std::mem::take(&mut bucket.stored[0].1);
    bucket.stored[0].1 = std::mem::replace(&mut bucket.stored[2].1, first);
    let altered = [(links[0].key.clone(), Problem::Altered), (links[2].key.clone(), Problem::Altered)];
    assert_eq!(bucket.problems(&bucket.recorded()), altered);
    assert!(!bucket.problems(&bucket.alone()).is_empty());
}

#[test]
fn a_removal_of_somebody_else_excuses_nothing() {
    let (mut bucket, links) = chain(3, true);
    let (heads, record) = (bucket.heads.clone(), bucket.links.clone());
    bucket.signs = false;
    bucket.remove(&links[0]);
    let forged = bucket.stored.last().unwrap().0.clone();
    (bucket.signs, bucket.links, bucket.heads) = (true, record, heads);
    let found = check(&bucket.entries(), &bucket.recorded());
    let problems: Vec<_> = found.iter().map(|one| (one.key.clone(), one.problem)).collect();
    assert_eq!(problems, [(links[0].key.clone(), Problem::Unconfirmed)]);
    assert!(found[0].detail.contains(&forged), "{}", found[0].detail);
    // Without a record the signature is wanted, and its own claims do not count.
    let both = [(forged, Problem::Unsigned), (links[0].key.clone(), Problem::Unconfirmed)];
    assert_eq!(bucket.problems(&bucket.alone()), both);
    bucket.signs = false;
    assert_eq!(bucket.problems(&bucket.recorded()), [(links[0].key.clone(), Problem::Unconfirmed)]);
}

#[test]
fn a_key_that_was_given_later_does_not_ask_for_earlier_signatures() {
    let (mut bucket, links) = chain(2, false);
    bucket.signs = true;
    bucket.archive(2);
    assert_eq!(bucket.problems(&bucket.recorded()), []);
    let without_record: Vec<_> = links.into_iter().map(|link| (link.key, Problem::Unsigned)).collect();
    assert_eq!(bucket.problems(&bucket.alone()), without_record);
}

#[test]
fn a_signature_is_of_the_stored_bytes_and_of_no_others() {
    let (mut bucket, links) = chain(1, true);
    let json = bucket.stored[0].1.clone();
    assert_eq!(Entry::of("k", json.as_bytes()).signed, Signed::By(key().public_key()));
    bucket.stored[0].1 = json.replace("\"rows\": 0", "\"rows\": 1");
    assert_eq!(Entry::of("k", bucket.stored[0].1.as_bytes()).signed, Signed::Wrongly);
    assert_eq!(bucket.problems(&bucket.alone()), [(links[0].key.clone(), Problem::Unsigned)]);
}

#[test]
fn manifests_that_are_older_than_the_chain_are_no_part_of_it() {
    let mut bucket = Bucket { signs: true, ..Bucket::default() };
    bucket.stored.push(("public.t/_manifests/old.v1.json".to_owned(), "{\"rows\": 1}".to_owned()));
    bucket.stored.push(("public.t/_manifests/torn.v1.json".to_owned(), "{".to_owned()));
    bucket.archive(1);
    assert_eq!(bucket.problems(&bucket.recorded()), []);
    let unsigned = Recorded { all_signed: false, ..bucket.alone() };
    assert_eq!(bucket.problems(&unsigned), []);
    // Who wants signatures of all is told of them.
    assert_eq!(bucket.problems(&bucket.alone()).len(), 2);
}

#[test]
fn whoever_takes_the_links_and_signatures_away_is_told_by_who_wants_them() {
    let (mut bucket, links) = chain(3, true);
    let removal = format!(
        "{{\"removed\": [{{\"key\": \"{}\", \"sha256\": \"{}\", \"previous\": []}}]}}",
        links[1].key, links[1].sha256
    );
    let mut forged = bucket.clone();
    forged.stored.remove(1);
    forged.stored.push(("_archive_ext/removed/x.json".to_owned(), removal));
    assert_eq!(forged.problems(&forged.alone()).last(), Some(&(links[1].key.clone(), Problem::Missing)));
    for (_, json) in &mut bucket.stored {
        *json = "{\"rows\": 1}".to_owned();
    }
    assert_eq!(bucket.problems(&bucket.alone()).len(), 3);
}

#[test]
fn what_a_run_left_that_was_rolled_back_needs_no_signature_and_witnesses_nothing() {
    let (mut bucket, _) = chain(2, false);
    let (heads, record) = (bucket.heads.clone(), bucket.links.clone());
    bucket.archive(7);
    (bucket.heads, bucket.links) = (heads, record);
    bucket.signs = true;
    bucket.archive(2);
    assert_eq!(bucket.problems(&bucket.recorded()), []);
}

#[test]
fn what_is_on_record_is_removed_by_the_record_alone() {
    let (mut bucket, links) = chain(3, true);
    bucket.remove(&links[0]);
    assert_eq!(bucket.problems(&bucket.recorded()), []);
    bucket.links.iter_mut().for_each(|known| known.removed = false);
    assert_eq!(bucket.problems(&bucket.recorded()), [(links[0].key.clone(), Problem::Unconfirmed)]);
}

#[test]
fn what_names_no_keys_and_hashes_says_nothing() {
    let of = |json: &str| Entry::of("k", json.as_bytes());
    for json in [
        "{\"previous\": [{\"key\": \"a\\u0000\", \"sha256\": \"00\"}]}",
        "{\"previous\": 5}",
        "{\"previous\": [], \"removed\": true}",
        "{\"removed\": []}",
        "[]",
    ] {
        assert_eq!((of(json).previous, of(json).removed), (None, Vec::new()), "{json}");
    }
    let long = "A".repeat(1 << 20);
    let signature = format!("{{\"algorithm\": \"ed25519\", \"public_key\": \"{long}\", \"value\": \"{long}\"}}");
    assert_eq!(of(&format!("{{\"previous\": [], \"signature\": {signature}}}")).signed, Signed::Wrongly);
}

#[test]
fn copies_are_compared_with_the_record_of_their_storage_and_need_nothing_else() {
    for signs in [false, true] {
        let (mut bucket, links) = chain(4, signs);
        bucket.stored.retain(|(key, _)| *key != links[1].key);
        let copies = vec![bucket.links[0].clone(), bucket.links[2].clone()];
        // The other storage has a key of its own, and some were written before there was one.
        let public_keys = vec!["another".to_owned()];
        let mut record = Recorded { copies, public_keys, ..Recorded::default() };
        assert_eq!(bucket.problems(&record), []);
        record.copies[0].public_key = Some("a third".to_owned());
        assert_eq!(bucket.problems(&record), [(links[0].key.clone(), Problem::Unsigned)]);
        record.copies[0].public_key = None;
        bucket.stored.remove(0);
        assert_eq!(bucket.problems(&record), [(links[0].key.clone(), Problem::Missing)]);
    }
}

#[test]
fn removals_sort_by_time() {
    let key = removal_key("2026-01-02T03:04:05.678901Z", &"ab".repeat(32));
    assert_eq!(key, "_archive_ext/removed/20260102T030405678901Z.abababababababab.json");
}

proptest! {
    #[test]
    fn any_altered_byte_and_any_loss_is_found(
        length in 2u32..8, signs in any::<bool>(), removals in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        place in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), lost in any::<bool>(),
    ) {
        let (mut bucket, mut links) = chain(length, signs);
        for index in removals {
            if links.len() > 1 {
                let link = links.remove(index.index(links.len()));
                bucket.remove(&link);
            }
        }
        prop_assert_eq!(bucket.problems(&bucket.recorded()), []);
        prop_assert_eq!(bucket.problems(&bucket.alone()), []);
        let at = place.index(bucket.stored.len());
        let is_last = bucket.stored[at].0 == bucket.heads[0].key;
        let key = bucket.stored[at].0.clone();
        if lost {
            bucket.stored.remove(at);
        } else {
            let json = &mut bucket.stored[at].1;
            let at = byte.index(json.len());
            json.replace_range(at..=at, if &json[at..=at] == "x" { "y" } else { "x" });
        }
        prop_assert!(bucket.problems(&bucket.recorded()).iter().any(|(found, _)| *found == key));
        if !is_last {
            prop_assert!(!bucket.problems(&bucket.alone()).is_empty());
        }
    }
}
