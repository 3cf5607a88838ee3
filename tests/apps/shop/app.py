"""A small shop: one database, an application factory, a long history of revisions."""

import os

import click
from flask import Flask
from models import Product, db
from sqlalchemy import select

from flask_migrate import Migrate

migrate = Migrate()


def create_app() -> Flask:
    """Build the app; nothing is queried here, for the tables may not exist yet."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///shop.db")
    db.init_app(app)
    migrate.init_app(app, db)
    app.add_url_rule("/", view_func=list_products)
    app.cli.add_command(seed)
    return app


def list_products() -> dict[str, str]:
    """Return the title and price of each product on sale."""
    on_sale = select(Product).where(Product.active).order_by(Product.title)
    return {product.title: product.price for product in db.session.scalars(on_sale)}


@click.command
def seed() -> None:
    """Put two products on sale, so that a fresh shop has something to show."""
    for sku, title, price_cents in (("MUG-01", "Blue mug", 1250), ("TEA-07", "Green tea", 495)):
        slug = title.lower().replace(" ", "-")
        db.session.add(Product(sku=sku, title=title, slug=slug, price_cents=price_cents))
    db.session.commit()
