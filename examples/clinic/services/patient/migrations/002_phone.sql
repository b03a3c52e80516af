alter table patient add column if not exists phone text;

create index if not exists patient_newest on patient (created_at desc, id);
