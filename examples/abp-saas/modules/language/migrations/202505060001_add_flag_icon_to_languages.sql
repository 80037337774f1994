alter table languages add column flag_icon varchar(48);
