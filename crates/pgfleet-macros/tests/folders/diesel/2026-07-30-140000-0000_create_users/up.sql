create table users ();
