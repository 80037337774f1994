-- 14 statements
-- a comment with a semicolon; and a quote '
/* a block; with "quotes' and $$ */
select 1; -- trailing; comment
select /* inner ; */ 2 /* nested /* deeper ; /* deepest ' */ ; */ ; */;
/**/select/**/3/**/;/**/
/*/ not closed yet ; */ select 4;
/***/ select 5 /** doc ; **/;
select 6 -- no semicolon here; it is a comment
;
select 7 --/* not a block ;
;
select 8 /* -- not a line ; */;
select 9 - -- ;
  -1;
select 10 */* a star, then a comment; */ 2;
select 11 -/* a minus, then a comment; */ 2;
select 12 +--;
2;
;;; /* empty statements; */ ; -- ;
;
select @ -13, 5 % 3, 2 ^ 3, 4 <> 5, 'a' || ';' || 'b';
select 14/*;*//*;*/--;
