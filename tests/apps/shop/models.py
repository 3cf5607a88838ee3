"""The shop's tables, every constraint named so that each database can drop it again."""

import enum
from datetime import date, datetime
from typing import TYPE_CHECKING

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    func,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


db = SQLAlchemy(metadata=MetaData(naming_convention=NAMING))

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """Stands for db.Model, which is made at run time, where a type checker cannot see it."""

else:
    Model = db.Model


class OrderStatus(enum.Enum):
    """Where an order stands; its names are the values that the database holds."""

    pending = "pending"
    paid = "paid"
    shipped = "shipped"
    cancelled = "cancelled"


class Customer(Model):
    """Someone who orders."""

    __tablename__ = "customer"
    __table_args__ = (UniqueConstraint("email"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(255))
    full_name: Mapped[str] = mapped_column(String(120))
    phone: Mapped[str | None] = mapped_column(String(40))
    newsletter: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Category(Model):
    """A shelf of the shop."""

    __tablename__ = "category"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))


class Product(Model):
    """Something to order."""

    __tablename__ = "product"
    __table_args__ = (UniqueConstraint("sku"), UniqueConstraint("slug"))

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(String(32))
    title: Mapped[str] = mapped_column(String(200), index=True)
    slug: Mapped[str] = mapped_column(String(220))
    description: Mapped[str | None] = mapped_column(Text)
    price_cents: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3), server_default="EUR")
    active: Mapped[bool] = mapped_column(server_default=true())
    category_id: Mapped[int | None] = mapped_column(ForeignKey("category.id"), index=True)

    @property
    def price(self) -> str:
        """Return the price as a customer reads it."""
        return f"{self.price_cents / 100:.2f} {self.currency}"


class Order(Model):
    """What a customer bought at one time."""

    __tablename__ = "orders"
    __table_args__ = (Index("ix_orders_status_placed_at", "status", "placed_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    status: Mapped[OrderStatus] = mapped_column(
        Enum(OrderStatus, name="order_status"), server_default="pending"
    )
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OrderLine(Model):
    """One product of an order."""

    __tablename__ = "order_line"

    order_id: Mapped[int] = mapped_column(
        ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True
    )
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    quantity: Mapped[int] = mapped_column(server_default="1")


class Warehouse(Model):
    """A place where products lie."""

    __tablename__ = "warehouse"
    __table_args__ = (UniqueConstraint("code"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(8))


class Stock(Model):
    """How much of a product a warehouse holds."""

    __tablename__ = "stock"

    warehouse_id: Mapped[int] = mapped_column(ForeignKey("warehouse.id"), primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    amount: Mapped[int] = mapped_column(server_default="0")


class Discount(Model):
    """A code that lowers the price of an order."""

    __tablename__ = "discount"
    __table_args__ = (
        UniqueConstraint("code"),
        CheckConstraint("percent BETWEEN 1 AND 90", name="percent_range"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(20))
    percent: Mapped[int]
    expires_on: Mapped[date | None]


class DailySales(Model):
    """Sums for the accountants, one row a day."""

    __tablename__ = "daily_sales"

    day: Mapped[date] = mapped_column(primary_key=True)
    orders: Mapped[int]
    revenue_cents: Mapped[int] = mapped_column(BigInteger)
    refunds_cents: Mapped[int] = mapped_column(BigInteger, server_default="0")
