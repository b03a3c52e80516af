"""SQLAlchemy with passwords minted as connections are made, on computes that come and go."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from workspace import Case


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]


class Pools(Case):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.production = f"{cls.project()}/branches/production"

    def engine(self, **options: object) -> tuple[sqlalchemy.Engine, list[str]]:
        """Makes an engine as the platform's guides do, and a list of the passwords it minted."""
        address, me = self.address(self.production), self.w.current_user.me().user_name
        url = sqlalchemy.URL.create(
            "postgresql+psycopg", me, None, database="databricks_postgres", **address
        )
        engine = sqlalchemy.create_engine(
            url,
            pool_pre_ping=True,
            pool_recycle=2700,
            connect_args={"sslmode": "require"},
            **options,
        )
        minted: list[str] = []

        @event.listens_for(engine, "do_connect")
        def mint(
            dialect: object, record: object, arguments: object, parameters: dict[str, str]
        ) -> None:
            parameters["password"] = self.token(self.production)
            minted.append(parameters["password"])

        self.addCleanup(engine.dispose)
        return engine, minted

    def test_a_pool_outlives_computes_that_are_suspended_and_killed(self) -> None:
        engine, minted = self.engine(pool_size=3, max_overflow=0)
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add(Note(line="first"))
        for number, blow in enumerate(("suspend", "kill", "suspend"), 2):
            with self.subTest(blow):
                held = [engine.connect() for _ in range(3)]
                for connection in held:
                    connection.execute(text("SELECT 1"))
                    connection.close()
                before = len(minted)
                self.workspace().strike(blow, self.production)
                with Session(engine) as session, session.begin():
                    session.add(Note(line=blow))
                with Session(engine) as session:
                    self.assertEqual(session.query(Note).count(), number)
                self.assertGreater(len(minted), before, "the old connections were gone")

    def test_a_connection_in_use_fails_and_the_next_one_works(self) -> None:
        engine, _ = self.engine(pool_size=1, max_overflow=0)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            self.workspace().strike("kill", self.production)
            with self.assertRaises(OperationalError):
                connection.execute(text("SELECT 1"))
        with engine.connect() as connection:
            self.assertEqual(connection.execute(text("SELECT 1")).scalar(), 1)

    def test_many_threads_share_a_pool(self) -> None:
        engine, minted = self.engine(pool_size=4, max_overflow=4)
        together = threading.Barrier(8, timeout=120)

        def ask(number: int) -> int:
            with engine.connect() as connection:
                together.wait()
                return connection.execute(text("SELECT :n"), {"n": number}).scalar_one()

        with ThreadPoolExecutor(8) as threads:
            self.assertEqual(list(threads.map(ask, range(8))), list(range(8)))
        self.assertEqual(len(minted), 8)
        self.assertEqual(len(set(minted)), 8, "each connection has a password of its own")
