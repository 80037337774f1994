-- pgfleet: requires audit_log@202501070001
-- Everything that one request did, over all services.
create index ix_audit_logs_correlation_id on audit_logs (correlation_id) where correlation_id is not null;
