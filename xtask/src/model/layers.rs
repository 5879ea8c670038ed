//! What the layers of a variant have to be: first the very layers of its base, then one for each component in order.

/// Digest and compressed size of a layer.
pub type Layer = (String, u64);

/// What is wrong with a variant's layers, a line each. `components` are in the order of their layers, each with the
/// most that its layer may have, in units of 10^6 bytes.
pub fn problems(base: &[Layer], variant: &[Layer], components: &[(&str, u64)]) -> Vec<String> {
    let digests = |layers: &[Layer]| layers.iter().map(|(digest, _)| digest.clone()).collect::<Vec<_>>();
    if !digests(variant).starts_with(&digests(base)) {
        return vec!["does not begin with the layers of its base".to_owned()];
    }
    let own = &variant[base.len()..];
    if own.len() != components.len() {
        return vec![format!("has {} layers for {} components", own.len(), components.len())];
    }
    let over = |((name, budget), (_, size)): (&(&str, u64), &Layer)| {
        let mb = *size as f64 / 1e6;
        (*size > budget * 1_000_000).then(|| format!("has {mb:.1} MB of {name}, whose budget_mb is {budget}"))
    };
    components.iter().zip(own).filter_map(over).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(sizes: &[(&str, u64)]) -> Vec<Layer> {
        sizes.iter().map(|(digest, mb)| ((*digest).to_owned(), mb * 1_000_000)).collect()
    }

    #[track_caller]
    fn check(variant: &[(&str, u64)], expected: &[&str]) {
        let base = layers(&[("a", 30), ("b", 300)]);
        assert_eq!(problems(&base, &layers(variant), &[("opencode", 60), ("pi", 20)]), expected);
    }

    #[test]
    fn base_order_and_budgets_are_held() {
        check(&[("a", 30), ("b", 300), ("c", 58), ("d", 17)], &[]);
        check(
            &[("a", 30), ("x", 300), ("c", 58), ("d", 17)],
            &["does not begin with the layers of its base"],
        );
        check(&[("a", 30), ("b", 300), ("c", 58)], &["has 1 layers for 2 components"]);
        check(
            &[("a", 30), ("b", 300), ("c", 61), ("d", 17)],
            &["has 61.0 MB of opencode, whose budget_mb is 60"],
        );
    }
}
