-- A migration that loses data: try it on a branch, where production does not notice.
alter table patient drop column birth_date;

delete from patient where id in (
    select id from patient order by created_at, id limit (select (count(*) + 1) / 2 from patient)
);
