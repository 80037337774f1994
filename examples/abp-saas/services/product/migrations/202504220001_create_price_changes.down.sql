drop table price_changes;
