alter table provider add column if not exists accepts_new_patients boolean not null default true;

create index if not exists provider_by_specialty on provider (specialty) where accepts_new_patients;
