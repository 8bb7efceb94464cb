//! What storing costs, in the currency of the prices.

/// Bytes that price lists call a gigabyte.
const GIGABYTE: f64 = 1e9;

/// What a gigabyte costs a month, where that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prices {
    /// In the database.
    pub local: Option<f64>,
    /// In the storage.
    pub archived: Option<f64>,
}

impl Prices {
    /// What is saved each month when so many bytes in the database become so many in the storage; negative where that costs
    /// more. `None` where a price is not known.
    pub fn saved_by_archiving(self, local_bytes: i64, archived_bytes: i64) -> Option<f64> {
        Some(monthly(local_bytes, self.local?) - monthly(archived_bytes, self.archived?))
    }

    /// What is saved each month when so many bytes of the storage go to where a gigabyte costs `there`.
    pub fn saved_by_moving(self, archived_bytes: i64, there: Option<f64>) -> Option<f64> {
        Some(monthly(archived_bytes, self.archived?) - monthly(archived_bytes, there?))
    }

    /// What is saved each month when so many bytes leave the storage.
    pub fn saved_by_expiring(self, archived_bytes: i64) -> Option<f64> {
        Some(monthly(archived_bytes, self.archived?))
    }
}

fn monthly(bytes: i64, price: f64) -> f64 {
    bytes as f64 / GIGABYTE * price
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_example() {
        // 10 TB of which 90 % are cold: 1,200 a month without the archive, 327 with it.
        let prices = Prices { local: Some(0.12), archived: Some(0.023) };
        let (all, cold) = (10_000_000_000_000_i64, 9_000_000_000_000_i64);
        let without = monthly(all, 0.12);
        assert_eq!(without.round(), 1_200.0);
        assert_eq!((without - prices.saved_by_archiving(cold, cold).unwrap()).round(), 327.0);
        assert_eq!(prices.saved_by_expiring(cold).unwrap().round(), 207.0);
        assert_eq!(prices.saved_by_moving(cold, Some(0.00099)).unwrap().round(), 198.0);
        assert_eq!(prices.saved_by_moving(cold, None), None);
    }

    #[test]
    fn an_unknown_price_saves_nobody_knows_what() {
        let prices = Prices { local: Some(0.12), archived: None };
        assert_eq!((prices.saved_by_archiving(1, 1), prices.saved_by_expiring(1)), (None, None));
    }
}
