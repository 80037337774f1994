alter table trips drop column version;
