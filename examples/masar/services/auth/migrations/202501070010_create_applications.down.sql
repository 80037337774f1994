drop table openiddict_applications;
