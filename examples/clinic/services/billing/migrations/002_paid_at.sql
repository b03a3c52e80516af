alter table invoice add column if not exists paid_at timestamptz;

create index if not exists invoice_unpaid on invoice (patient_id) where paid_at is null;
