select count(*), sum(cardinality(seqs)) from s.queue_take(1,'c',100,100,600000000,false);
